/** How a namespace and a new pod come into the mesh, and what others notice of it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { median } from '../stats.ts'
import { CulvertError } from '../../lib/errors.ts'
import { packetsOf } from '../../lab/capture/pcap.ts'
import { until } from '../../lab/demo/facts.ts'
import { expect } from '../../lab/demo/narrator.ts'
import { holdConnection, startLoad } from '../../test/cluster/clients.ts'
import type { Measured } from './table.ts'
import { clientOf, serverIp, startPair, whenObserved, type BenchWorld } from './world.ts'

const OPEN = 10
const PODS = 8
const HBONE = 15008
const A_WHILE_MS = 2000

export async function measureComingIn(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl } = world
  const firstSyn: number[] = []
  let cut = 0
  let failed = 0
  let requests = 0
  for (let round = 0; round < world.rounds; round++) {
    world.progress(`a namespace comes in, round ${round + 1} of ${world.rounds}`)
    const one = await comeIn(world)
    firstSyn.push(one.firstSynMs)
    cut += one.cut
    failed += one.failed
    requests += one.requests
    if (round + 1 < world.rounds) {
      await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mesh', null)
      await whenObserved(world, undefined)
      // Another client: the last one's tunnel is kept for a while, and would need no SYN.
      await kubectl.ok(['delete', 'pod', '-n', 'bench-mesh', 'client', '--now'])
      await startPair(world, 'mesh')
    }
  }
  const total = OPEN * world.rounds
  return {
    'enrol-first-syn': {
      text: `${inSeconds(median(firstSyn))} (${inSeconds(Math.min(...firstSyn))}–${inSeconds(Math.max(...firstSyn))})`,
      value: median(firstSyn),
      samples: { ms: firstSyn },
    },
    'enrol-open': {
      text: cut === 0 ? `live on, ${total} of ${total}` : `cut, ${cut} of ${total}`,
      value: cut,
    },
    'enrol-new': { text: `${failed} of ${requests} fail`, value: failed },
    'new-pod': await newPods(world),
  }
}

interface ComingIn {
  readonly firstSynMs: number
  readonly cut: number
  readonly failed: number
  readonly requests: number
}

async function comeIn(world: BenchWorld): Promise<ComingIn> {
  const { kubectl, eyes, nodes } = world
  const ip = await serverIp(world, 'mesh')
  const client = clientOf('mesh')
  const held = await Promise.all(
    Array.from({ length: OPEN }, () => holdConnection(kubectl, client, ip, 7000)),
  )
  const load = await startLoad(kubectl, client, `http://${ip}:8080/`, 100)
  const capture = await eyes.capture(nodes.near)
  // The clock of the capture is the machine's, as ours is: nodes of the local cluster share it.
  const askedAtMs = Date.now()
  await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mesh', 'enabled')
  await sleep(A_WHILE_MS) // to ask how far it is would take processor time from it
  await whenObserved(world, 'enrolled')
  const pcap = await capture.stop()
  const { requests, failures } = await load.stop()
  const ends = await Promise.all(held.map(async connection => await connection.stop()))
  return {
    firstSynMs: firstSynTo(pcap, HBONE) - askedAtMs,
    cut: ends.filter(({ how }) => how !== 'closed').length,
    failed: failures.length,
    requests,
  }
}

/** When the first SYN to the port was seen, Unix milliseconds. */
function firstSynTo(pcap: Buffer, port: number): number {
  for (const { timeMs, bytes } of packetsOf(pcap)) {
    // Ethernet, IPv4, TCP: what the local clusters speak between nodes.
    if (bytes.length < 54 || bytes.readUInt16BE(12) !== 0x0800 || bytes[23] !== 6) continue
    const tcp = bytes.subarray(14 + (bytes[14]! & 0xf) * 4)
    if (tcp.readUInt16BE(2) === port && (tcp[13]! & 0x12) === 0x02) return timeMs
  }
  throw new CulvertError('KUBERNETES', `no SYN to ${port} was seen`)
}

interface FirstAct {
  readonly answeredAfterMs: number | null
  readonly tookMs: number | null
  readonly failures: readonly string[]
}

/** Pods whose first act is a request: in the mesh, and without it beside them. */
async function newPods(world: BenchWorld): Promise<Measured> {
  const took: Record<'none' | 'mesh', number[]> = { none: [], mesh: [] }
  let failures = 0
  for (let at = 0; at < PODS; at++)
    for (const arm of ['none', 'mesh'] as const) {
      world.progress(`new pods, ${at + 1} of ${PODS}`)
      const said = await firstAct(world, arm, `new-${at}`)
      expect(said.answeredAfterMs !== null, `a new pod was never answered: ${said.failures.join()}`)
      took[arm].push(said.answeredAfterMs)
      if (arm === 'mesh') failures += said.failures.length
    }
  const show = (values: readonly number[]) =>
    `${median(values).toFixed(0)} ms (${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)})`
  return {
    text: `answered after ${show(took.mesh)}, no mesh ${show(took.none)}; ${failures} attempts failed`,
    value: median(took.mesh),
    samples: took,
  }
}

async function firstAct(world: BenchWorld, arm: 'none' | 'mesh', name: string): Promise<FirstAct> {
  const { kubectl, nodes, image } = world
  const ip = await serverIp(world, arm)
  const namespace = `bench-${arm}`
  await kubectl.apply(`
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  nodeName: ${nodes.near}
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - { name: app, image: '${image}', command: [node, bench/cluster/first-act.ts, 'http://${ip}:8080/'] }
`)
  const text = await until(`the end of ${name}`, 60_000, async () => {
    const pod = await kubectl.get('pod', '-n', namespace, name)
    const { phase } = pod.status
    return phase === 'Succeeded' || phase === 'Failed'
      ? await kubectl.logs(`${namespace}/${name}`)
      : undefined
  })
  await kubectl.ok(['delete', 'pod', '-n', namespace, name, '--now', '--wait=false'])
  return JSON.parse(text) as FirstAct
}

export function inSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`
}
