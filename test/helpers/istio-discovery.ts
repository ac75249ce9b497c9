/**
 * A delta discovery server with an istiod's two types only, as a program, so that it can run in a namespace of the lab. It
 * reads the resources from its standard input, says where it listens, and answers for as long as it is let.
 */
import { text } from 'node:stream/consumers'
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponseSchema,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { startConnectServer } from './connect-server.ts'
import { any } from './discovery-server.ts'
import { createRoot, issueServer } from './test-pki.ts'

/** By type URL and name: the encoded resource, base64. A type that is not there is never answered. */
export type IstioResources = Readonly<Record<string, Readonly<Record<string, string>>>>

/** What it says once it listens, on one line. */
export interface IstioListening {
  readonly port: number
  /** PEM. */
  readonly rootCa: string
}

async function* answers(
  requests: AsyncIterable<DeltaDiscoveryRequest>,
  all: IstioResources,
): AsyncGenerator<MessageInitShape<typeof DeltaDiscoveryResponseSchema>> {
  let nonce = 0
  for await (const { typeUrl, responseNonce } of requests) {
    const resources = all[typeUrl]
    if (responseNonce !== '' || !resources) continue // an acknowledgement, or nothing that istiod would know
    yield {
      typeUrl,
      nonce: `n${++nonce}`,
      resources: Object.entries(resources).map(([name, base64]) => ({
        name,
        version: '1',
        resource: any(typeUrl, Buffer.from(base64, 'base64')),
      })),
    }
  }
}

const all = JSON.parse(await text(process.stdin)) as IstioResources
const root = await createRoot('istiod in a test')
const { port } = await startConnectServer(await issueServer(root), router =>
  router.service(AggregatedDiscoveryService, {
    deltaAggregatedResources: requests => answers(requests, all),
  }),
)
const listening: IstioListening = { port, rootCa: root.pem }
process.stdout.write(`${JSON.stringify(listening)}\n`)
