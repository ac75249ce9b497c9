/**
 * One data plane in a process of its own, so that what an attack costs it can be told from what the attacker costs:
 * memory, descriptors, time that the event loop was held. Started by `victim.ts`, spoken to in its messages.
 */
import { readdirSync } from 'node:fs'
import { MARK, PORT } from '../../agent/ports.ts'
import type { Connection } from '../../agent/proxy/connection.ts'
import { inNetns, openNetns } from '../../agent/sys/netns.ts'
import { listenTcp } from '../../agent/sys/socket.ts'
import { DataPlane } from '../../agent/worker/data-plane.ts'
import type {
  AdmitDecision,
  AdmitQuestion,
  FromWorker,
  RouteDecision,
  RouteQuestion,
} from '../../agent/worker/messages.ts'
import type { FromVictim, ToVictim, VictimPod } from './victim.ts'

const TICK_MS = 10

function tell(message: FromVictim): void {
  if (process.connected) process.send!(message, () => undefined) // the test may be over
}

let longestHeldMs = 0
let lastCpu = process.threadCpuUsage()
// Processor time between two ticks, not time: a machine that is busy with something else holds nobody up here.
setInterval(() => {
  const used = process.threadCpuUsage(lastCpu)
  lastCpu = process.threadCpuUsage()
  longestHeldMs = Math.max(longestHeldMs, (used.user + used.system) / 1000)
}, TICK_MS)

function start({ pods, foreign, options }: Extract<ToVictim, { type: 'start' }>): DataPlane {
  const events = {
    opened: () => undefined,
    closed: (connection: Connection) => tell({ type: 'closed', record: connection.record() }),
  }
  const answer = (message: FromWorker) => {
    if (message.type === 'log') tell({ type: 'log', line: message })
    if (message.type === 'connections') tell({ type: 'open', records: message.records })
    if (message.type === 'route')
      plane.handle({
        type: 'route-answer',
        id: message.id,
        decision: route([...pods, ...foreign], message.question),
      })
    if (message.type === 'admit')
      plane.handle({ type: 'admit-answer', id: message.id, decision: admit(message.question) })
  }
  const plane = new DataPlane(options, answer, events)
  for (const pod of pods) {
    const netnsFd = openNetns(`/run/netns/${pod.netns}`)
    const open = (port: number) => inNetns(netnsFd, () => listenTcp({ port, mark: MARK, reusePort: true }))
    const facts = { uid: pod.name, namespace: 'shop', name: pod.name, serviceAccount: pod.name }
    plane.handle({ type: 'pod', pod: { ...facts, identity: pod.identity, ips: pod.ips, netnsFd } })
    plane.handle({ type: 'certificate', podUid: pod.name, certificate: pod.certificate })
    const listeners = { outbound: open(PORT.outbound), inbound: open(PORT.inbound), hbone: open(PORT.hbone) }
    plane.handle({ type: 'listen', podUid: pod.name, listeners })
  }
  return plane
}

function route(
  pods: readonly Pick<VictimPod, 'name' | 'ips' | 'identity'>[],
  { ip, port }: RouteQuestion,
): RouteDecision {
  const pod = pods.find(each => each.ips.includes(ip))
  if (!pod) return { kind: 'refuse', reason: 'unreachable', detail: 'nobody has this address' }
  const via = { kind: 'hbone', port: PORT.hbone, identities: [pod.identity] } as const
  return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: { workload: pod.name }, via }] }
}

function admit({ identity }: AdmitQuestion): AdmitDecision {
  if (identity?.endsWith('/denied'))
    return { kind: 'refuse', reason: 'policy', detail: 'not allowed', peer: {} }
  return { kind: 'admit', reason: identity === undefined ? 'peer-not-enrolled' : 'mtls', peer: {} }
}

let plane: DataPlane | undefined
process.on('message', (message: ToVictim) => {
  if (message.type === 'start') {
    plane = start(message)
    tell({ type: 'started' })
  } else if (message.type === 'measure') {
    for (let round = 0; round < 3; round++) (globalThis as { gc?: () => void }).gc?.()
    tell({
      type: 'measured',
      // Outside the measured process nobody can tell young garbage from what is held: collect first.
      heldBytes: process.memoryUsage().heapUsed + process.memoryUsage().external,
      rssBytes: process.memoryUsage().rss,
      descriptors: readdirSync('/proc/self/fd').length,
      longestHeldMs,
    })
    longestHeldMs = 0
    lastCpu = process.threadCpuUsage()
  } else plane?.handle({ type: 'list-connections', id: 0 })
})
process.on('disconnect', () => process.exit(0))
