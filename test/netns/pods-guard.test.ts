import { EventEmitter, once } from 'node:events'
import t, { type Test } from 'tap'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import { RedirectGuard, type DriftEvent } from '../../agent/pods/guard.ts'
import type { NamespaceIdentity } from '../../agent/pods/verify.ts'
import { applyRedirect, inspectRedirect, removeRedirect } from '../../agent/redirect/apply.ts'
import { becomes } from '../helpers/becomes.ts'
import { askFrom, standInAgent } from '../helpers/capture.ts'
import { inPod, makePods, serve, type TestPod } from '../helpers/pods.ts'
import { quietLog } from '../helpers/quiet-log.ts'

const settings = { ...NOT_ENROLLED, mesh: true }
const UID = 'uid-1'

interface World {
  readonly pod: TestPod
  readonly outside: TestPod
  readonly guard: RedirectGuard
  readonly events: DriftEvent[]
  /** The next event that is not taken yet. */
  readonly next: () => Promise<DriftEvent>
}

async function world(
  t: Test,
  options: { roundMs?: number; identity?: (pod: TestPod) => NamespaceIdentity } = {},
): Promise<World> {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  await applyRedirect(pod!.fd, settings)
  const events: DriftEvent[] = []
  const told = new EventEmitter()
  const guard = new RedirectGuard({
    log: quietLog().log,
    onDrift: event => {
      events.push(event)
      told.emit('drift')
    },
    roundMs: options.roundMs ?? 30_000,
  })
  t.teardown(() => guard.close())
  guard.watch(UID, pod!.fd, settings, options.identity?.(pod!))
  const next = async () => {
    if (events.length === 0) await once(told, 'drift')
    return events.shift()!
  }
  return { pod: pod!, outside: outside!, guard, events, next }
}

await t.test(
  'flushed rules are heard of, put right within the second, and reported with their author',
  async t => {
    const { pod, outside, next } = await world(t)
    await serve(t, pod, 8080, socket => socket.end('in the clear'))
    for (const [command, part] of [
      ['iptables -t nat -F', 'IPv4 nat'],
      ['ip6tables -t nat -F', 'IPv6 nat'],
      ['nft flush ruleset', 'IPv4 mangle'],
    ] as const) {
      const atMs = performance.now()
      inPod(pod, 'sh', ['-c', command])
      const { podUid, drift, repairedInMs, by } = await next()
      t.ok(
        performance.now() - atMs < 1000,
        `${Math.round(performance.now() - atMs)} ms after the command was started`,
      )
      t.equal(podUid, UID)
      t.ok(drift.some(sentence => sentence.startsWith(`${part}: `)))
      t.ok(repairedInMs! < 1000)
      t.ok(
        by.some(author => author.startsWith(command.split(' ')[0]!)),
        `by ${by.join(', ')}`,
      )
      t.match(await askFrom(t, outside, pod.ip, 8080), /^inbound/)
      t.match(await askFrom(t, outside, pod.ip6, 8080), /^inbound/)
    }
  },
)

await t.test('routing is guarded, too', async t => {
  const { pod, next } = await world(t)
  inPod(pod, 'ip', ['rule', 'del', 'pref', '32764'])
  t.match(await next(), {
    drift: ['IPv4 routing: the rule for marked answers is missing'],
    repairedInMs: Number,
  })
  inPod(pod, 'ip', ['-6', 'route', 'flush', 'table', '100'])
  t.match(await next(), { drift: ['IPv6 routing: the local route of table 100 is missing'] })
})

await t.test('changes of our own, and of rules that are not ours, are no drift', async t => {
  const { pod, guard, events, next } = await world(t)
  const strict = { ...settings, strictInbound: true }
  await applyRedirect(pod.fd, strict)
  guard.update(UID, strict)
  inPod(pod, 'iptables', ['-t', 'nat', '-A', 'POSTROUTING', '-j', 'RETURN'])
  inPod(pod, 'iptables', ['-t', 'filter', '-F'])
  const { drift } = await next()
  t.ok(drift.every(sentence => sentence.startsWith('IPv4 filter')))
  t.strictSame(events, [])
  t.strictSame(await inspectRedirect(pod.fd, strict), { drift: [], bypasses: [] })
})

await t.test('a pod that is no longer guarded may be cleared', async t => {
  const { pod, guard, events } = await world(t)
  guard.unwatch(UID)
  await removeRedirect(pod.fd)
  const [other] = makePods(t, ['other'])
  await standInAgent(t, other!)
  await applyRedirect(other!.fd, settings)
  guard.watch('uid-2', other!.fd, settings)
  inPod(other!, 'iptables', ['-t', 'nat', '-F'])
  await becomes(() => events.length > 0)
  t.strictSame(
    events.map(({ podUid }) => podUid),
    ['uid-2'],
  )
  t.notMatch(inPod(pod, 'iptables-save', []), /CULVERT/)
})

await t.test('what cannot be put right is told once, and once more when it is in order', async t => {
  const { pod, next, events } = await world(t, { roundMs: 100 })
  inPod(pod, 'iptables', ['-t', 'raw', '-A', 'OUTPUT', '-p', 'tcp', '-j', 'NOTRACK'])
  const found = await next()
  t.match(found.drift, [/^IPv4 raw: OUTPUT takes packets out of connection tracking/])
  t.equal(found.repairedInMs, undefined)
  inPod(pod, 'iptables', ['-t', 'raw', '-F'])
  t.match(await next(), { drift: [], repairedInMs: Number })
  t.strictSame(events, [])
})

await t.test('listeners and addresses are looked at in turn', async t => {
  const { pod, next } = await world(t, {
    roundMs: 100,
    identity: pod => ({ netns: `/run/netns/${pod.netns}`, ips: [pod.ip, pod.ip6] }),
  })
  inPod(pod, 'ip', ['addr', 'del', `${pod.ip}/24`, 'dev', 'eth0'])
  t.match(await next(), { drift: [`namespace: it has lost the address ${pod.ip}`], repairedInMs: undefined })
})

await t.test('nothing that listens is drift', async t => {
  const [pod] = makePods(t, ['pod'])
  await applyRedirect(pod!.fd, settings)
  const { promise, resolve } = Promise.withResolvers<DriftEvent>()
  const guard = new RedirectGuard({ log: quietLog().log, onDrift: resolve })
  t.teardown(() => guard.close())
  guard.watch(UID, pod!.fd, settings)
  t.match(
    (await promise).drift,
    [15001, 15006, 15008].map(port => `listeners: nothing listens on ${port}`),
  )
})
