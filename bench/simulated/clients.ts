/**
 * A program: discovery clients, each on a node and a connection of its own, subscribed to everything as an agent is. Prints
 * a line of JSON when all have been told of the whole cluster. Then obeys its standard input: `until N` waits until each
 * has heard that N pods which were not there at the start are ready, for ten minutes at most, writes when each heard of each
 * (heard.json: nanoseconds by client and key), and prints a summary.
 * Usage: node clients.ts DIRECTORY URL CLIENTS RESOURCES. The directory has root.pem and token-0, token-1, …
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fromBinary } from '@bufbuild/protobuf'
import { AddressSchema, WorkloadStatus } from '../../lib/proto/gen/istio/workload_pb.js'
import type { DeltaDiscoveryResponse } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { argument, nowNs, stop, tell } from '../clients/program.ts'
import { DiscoveryClient } from './discovery-client.ts'
import { REPLACED } from './simulated-cluster.ts'

const ADDRESS = 'type.googleapis.com/istio.workload.Address'
const TYPES = [
  'type.googleapis.com/culvert.v1.TrustBundle',
  'type.googleapis.com/culvert.v1.Node',
  'type.googleapis.com/culvert.v1.Namespace',
  'type.googleapis.com/istio.security.Authorization',
  ADDRESS,
]
const UNTIL_MS = 600_000

const [directory = '', url = ''] = process.argv.slice(2)
const count = argument(2)
const resources = argument(3)
const root = readFileSync(join(directory, 'root.pem'), 'utf8')
const startMs = performance.now()
/** What all clients are told is the same: it is decoded once, by name and version. */
const isReadyByVersion = new Map<string, boolean>()

interface Told {
  readonly client: DiscoveryClient
  addresses: number
  syncedMs: number | undefined
  readonly heardNs: Map<string, bigint>
}

const told: Told[] = []
let wanted = Infinity
let changed: () => void = () => undefined

for (let at = 0; at < count; at++) {
  const client = new DiscoveryClient({
    url,
    root,
    token: readFileSync(join(directory, `token-${at}`), 'utf8'),
    types: TYPES,
    take: response => take(told[at]!, response),
    failed: stop,
  })
  told.push({ client, addresses: 0, syncedMs: undefined, heardNs: new Map() })
}

function take(state: Told, { typeUrl, resources: found }: DeltaDiscoveryResponse): void {
  if (typeUrl !== ADDRESS) return
  state.addresses += found.length
  if (state.syncedMs === undefined && state.addresses >= resources) {
    state.syncedMs = performance.now() - startMs
    if (told.every(({ syncedMs }) => syncedMs !== undefined))
      tell({ syncedMs: told.map(({ syncedMs }) => syncedMs) })
  }
  for (const { name, version, resource } of found) {
    if (!name.includes(REPLACED) || state.heardNs.has(name)) continue
    const key = `${name} ${version}`
    let isReady = isReadyByVersion.get(key)
    if (isReady === undefined) isReadyByVersion.set(key, (isReady = readyOf(resource!.value)))
    if (isReady) state.heardNs.set(name, nowNs())
  }
  if (told.every(({ heardNs }) => heardNs.size >= wanted)) changed()
}

function readyOf(bytes: Uint8Array): boolean {
  const { type } = fromBinary(AddressSchema, bytes)
  return type.case === 'workload' && type.value.status === WorkloadStatus.HEALTHY
}

async function until(pods: number): Promise<void> {
  wanted = pods
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>(resolve => {
    changed = resolve
    timer = setTimeout(resolve, UNTIL_MS)
    if (told.every(({ heardNs }) => heardNs.size >= wanted)) resolve()
  })
  clearTimeout(timer)
  const heard = told.map(({ heardNs }) =>
    Object.fromEntries([...heardNs].map(([name, ns]) => [keyOf(name), ns.toString()])),
  )
  writeFileSync(join(directory, 'heard.json'), JSON.stringify(heard))
  tell({ largestBytes: Math.max(...told.map(({ client }) => client.largestBytes)) })
}

/** `namespace/name` of a pod's resource. */
function keyOf(name: string): string {
  return name.split('/').slice(-2).join('/')
}

createInterface({ input: process.stdin }).on('line', line => {
  const [verb, pods] = line.split(' ')
  if (verb === 'until') void until(Number(pods))
})
