/**
 * A program: writes what the ca-server would send to an agent of a cluster with so many pods, to a file. Each response of
 * the stream stands behind its length, 4 bytes, big-endian. Usage: node tell.ts PODS FILE
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { create, toBinary } from '@bufbuild/protobuf'
import { DeltaStream } from '../../ca-server/discovery/delta-stream.ts'
import { createLogger } from '../../lib/log.ts'
import {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import { publishedCluster } from './cluster.ts'

const [pods = '', file = ''] = process.argv.slice(2)
const log = createLogger({}, 'silent')
const { publisher } = await publishedCluster(Number(pods), () => [], log)
const stream = new DeltaStream({ sets: publisher.sets, log })
for (const { typeUrl } of publisher.sets) stream.receive(create(DeltaDiscoveryRequestSchema, { typeUrl }))

const out = openSync(file, 'w')
for (let response = stream.take(); response; response = stream.take()) {
  const bytes = toBinary(DeltaDiscoveryResponseSchema, response)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  writeSync(out, length)
  writeSync(out, bytes)
  const { typeUrl, nonce } = response
  stream.receive(create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce: nonce }))
}
closeSync(out)
stream.close()
