/** A delta discovery server on loopback TLS that says what the test tells it to, and shows what it is asked. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { create, toBinary } from '@bufbuild/protobuf'
import { AnySchema, type Any } from '@bufbuild/protobuf/wkt'
import type { Test } from 'tap'
import { NamespaceSchema, NodeSchema, TrustBundleSchema } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponseSchema,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import { startConnectServer, type ConnectServer } from './connect-server.ts'
import { createRoot, issueServer } from './test-pki.ts'

type Response = MessageInitShape<typeof DeltaDiscoveryResponseSchema>

/** Things that come one after the other, taken one after the other, whichever is first. */
class Line<T> {
  readonly #items: T[] = []
  readonly #takers: ((item: T) => void)[] = []

  put(item: T): void {
    const taker = this.#takers.shift()
    if (taker) taker(item)
    else this.#items.push(item)
  }

  async take(): Promise<T> {
    if (this.#items.length > 0) return this.#items.shift()!
    return new Promise(resolve => this.#takers.push(resolve))
  }
}

export class DiscoveryStream {
  readonly headers: Headers
  readonly requests = new Line<DeltaDiscoveryRequest>()
  readonly outgoing = new Line<Response | 'end' | Error>()
  /** Resolves when the client has gone. */
  readonly ended: Promise<void>
  #nonce = 0

  constructor(headers: Headers, ended: Promise<void>) {
    this.headers = headers
    this.ended = ended
  }

  nextRequest(): Promise<DeltaDiscoveryRequest> {
    return this.requests.take()
  }

  /** The next `count` requests, by type URL without its prefix. */
  async nextRequests(count: number): Promise<Record<string, DeltaDiscoveryRequest>> {
    const requests: Record<string, DeltaDiscoveryRequest> = {}
    for (let at = 0; at < count; at++) {
      const request = await this.nextRequest()
      requests[request.typeUrl.replace('type.googleapis.com/', '')] = request
    }
    return requests
  }

  /** Sends a response of a type with resources by name; gives its nonce. */
  send(type: string, resources: Record<string, Uint8Array>, removed: string[] = [], version = 'v1'): string {
    const typeUrl = `type.googleapis.com/${type}`
    const nonce = `n${++this.#nonce}`
    this.outgoing.put({
      typeUrl,
      nonce,
      removedResources: removed,
      resources: Object.entries(resources).map(([name, value]) => ({
        name,
        version,
        resource: any(typeUrl, value),
      })),
    })
    return nonce
  }

  raw(response: Response): void {
    this.outgoing.put(response)
  }

  end(): void {
    this.outgoing.put('end')
  }

  fail(error: Error): void {
    this.outgoing.put(error)
  }
}

export interface DiscoveryServer {
  readonly url: URL
  readonly rootCa: string
  readonly connect: ConnectServer
  nextStream(): Promise<DiscoveryStream>
  stop(): Promise<void>
  /** Listens on the same port again. */
  restart(): Promise<void>
}

export async function startDiscoveryServer(t: Test): Promise<DiscoveryServer> {
  const root = await createRoot('discovery test root')
  const credentials = await issueServer(root)
  const streams = new Line<DiscoveryStream>()
  const start = (port?: number) =>
    startConnectServer(
      credentials,
      router =>
        router.service(AggregatedDiscoveryService, {
          async *deltaAggregatedResources(requests, context) {
            const ended = Promise.withResolvers<void>()
            const stream = new DiscoveryStream(context.requestHeader, ended.promise)
            context.signal.addEventListener('abort', () => stream.end())
            void drain(requests, stream.requests, ended.resolve)
            streams.put(stream)
            for (;;) {
              const next = await stream.outgoing.take()
              if (next === 'end') return
              if (next instanceof Error) throw next
              yield next
            }
          },
        }),
      port,
    )
  let server = await start()
  t.teardown(() => server.stop())
  return {
    url: server.url,
    rootCa: root.pem,
    get connect() {
      return server
    },
    nextStream: () => streams.take(),
    stop: () => server.stop(),
    async restart() {
      await server.stop()
      server = await start(server.port)
    },
  }
}

async function drain(
  from: AsyncIterable<DeltaDiscoveryRequest>,
  into: Line<DeltaDiscoveryRequest>,
  ended: () => void,
): Promise<void> {
  try {
    for await (const request of from) into.put(request)
  } catch {
    // The client went without a word, which some tests are about.
  }
  ended()
}

export function any(typeUrl: string, value: Uint8Array): Any {
  return create(AnySchema, { typeUrl, value })
}

export function namespaceBytes(init: MessageInitShape<typeof NamespaceSchema>): Uint8Array {
  return toBinary(NamespaceSchema, create(NamespaceSchema, init))
}

export function nodeBytes(init: MessageInitShape<typeof NodeSchema>): Uint8Array {
  return toBinary(NodeSchema, create(NodeSchema, init))
}

export function trustBundleBytes(init: MessageInitShape<typeof TrustBundleSchema>): Uint8Array {
  return toBinary(TrustBundleSchema, create(TrustBundleSchema, init))
}
