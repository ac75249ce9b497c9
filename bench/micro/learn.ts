/**
 * A program: an agent's mesh learns of a cluster from a file of responses that `tell.ts` has written, by the same code as
 * from a stream; then it is asked where connections go. Writes a `Learnt` as JSON to its standard output. In a process of
 * its own, with --expose-gc, so that nothing else is in its memory. Usage: node --expose-gc learn.ts FILE PODS [--quick]
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { fromBinary } from '@bufbuild/protobuf'
import { Mesh } from '../../agent/mesh/mesh.ts'
import { Router } from '../../agent/mesh/router.ts'
import { Subscription } from '../../agent/mesh/subscription.ts'
import { createLogger } from '../../lib/log.ts'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import { DeltaDiscoveryResponseSchema } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { OWN_NODE, podIp, serviceIp } from './cluster.ts'
import { QUICK, ratesOf, THOROUGH } from './sampler.ts'

export interface Learnt {
  readonly pods: number
  /** From encoded responses to a mesh that answers. */
  readonly seconds: number
  /** The process's growth at its largest, and what of it was still in use at the end. */
  readonly peakBytes: number
  readonly keptBytes: number
  /** Answers a second, for addresses of pods and of services. */
  readonly podRates: readonly number[]
  readonly serviceRates: readonly number[]
}

/** Addresses asked about in turn, spread over the whole cluster. */
const ASKED = 4096

const [file = '', podsText = '', flag] = process.argv.slice(2)
const pods = Number(podsText)
const options = flag === '--quick' ? QUICK : THOROUGH

const log = createLogger({}, 'silent')
const mesh = new Mesh({ nodeName: OWN_NODE })
const router = new Router({ mesh, nodeName: OWN_NODE, log })
const subscriptions = new Map(
  mesh.kinds.map(kind => [
    kind.typeUrl,
    new Subscription({ kind, maxRequestBytes: 0, settleMs: 60_000, quietMs: 60_000, log }),
  ]),
)
for (const subscription of subscriptions.values()) subscription.begin()

const usedBefore = used()
const rssBefore = process.memoryUsage.rss()
const seconds = await learn()
const peakBytes = Math.max(0, process.resourceUsage().maxRSS * 1024 - rssBefore)
const keptBytes = Math.max(0, used() - usedBefore)
for (const subscription of subscriptions.values()) subscription.end()
for (const kind of mesh.kinds) kind.settled()

const known = mesh.workloads.size
if (known !== pods) throw new Error(`${known} workloads known of ${pods}`)
const learnt: Learnt = {
  pods,
  seconds,
  peakBytes,
  keptBytes,
  podRates: await rates(at => podIp(at), pods, 8080),
  serviceRates: await rates(at => serviceIp(at), Math.ceil(pods / 10), 80),
}
process.stdout.write(`${JSON.stringify(learnt)}\n`)

/** Seconds that the responses took, reading the file left out. */
async function learn(): Promise<number> {
  const { signal } = new AbortController()
  const input = openSync(file, 'r')
  let tookMs = 0
  for (let bytes = next(input); bytes; bytes = next(input)) {
    const startMs = performance.now()
    const response = fromBinary(DeltaDiscoveryResponseSchema, bytes)
    await subscriptions.get(response.typeUrl)!.take(response, signal)
    tookMs += performance.now() - startMs
  }
  closeSync(input)
  return tookMs / 1000
}

function next(input: number): Buffer | undefined {
  const head = Buffer.alloc(4)
  if (readSync(input, head) < head.length) return undefined
  const bytes = Buffer.allocUnsafeSlow(head.readUInt32BE())
  for (let at = 0; at < bytes.length;) {
    const count = readSync(input, bytes, at, bytes.length - at, null)
    if (count === 0) throw new Error(`${file} ends inside a response`)
    at += count
  }
  return bytes
}

/** Answers a second about the addresses that `ipAt` gives for 0 to `count` - 1. */
async function rates(ipAt: (at: number) => string, count: number, port: number): Promise<number[]> {
  const podUid = 'uid-local'
  const ips = ['10.255.0.2']
  const pod = { uid: podUid, namespace: 'ns-0', name: 'local', serviceAccount: 'local', ips }
  router.setLocalPod(
    { ...pod, annotations: {}, netns: '/proc/self/ns/net', terminating: false },
    { ...NOT_ENROLLED, mesh: true },
  )
  const asked = Array.from({ length: ASKED }, (_, at) => ipAt((at * 7919) % count))
  const first = await router.route({ podUid, ip: asked[0]!, port })
  if (first.kind !== 'forward' || first.endpoints[0]?.via.kind !== 'hbone')
    throw new Error(`${asked[0]} is not reached through a tunnel: ${JSON.stringify(first)}`)
  return ratesOf(async times => {
    for (let at = 0; at < times; at++) await router.route({ podUid, ip: asked[at % ASKED]!, port })
  }, options)
}

/** Bytes in use, once what is not has been collected. */
function used(): number {
  globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
