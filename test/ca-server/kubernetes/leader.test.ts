import { once } from 'node:events'
import t, { type Test } from 'tap'
import { Leader, type LeaderTimes } from '../../../ca-server/kubernetes/leader.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { StandInApi, type Json } from '../../helpers/stand-in-api.ts'

const PATH = '/apis/coordination.k8s.io/v1/namespaces/culvert-system/leases/culvert-ca'
// Leases last whole seconds.
const TIMES: LeaderTimes = { leaseMs: 2000, renewDeadlineMs: 1000, retryMs: 100 }

interface Replica {
  leader: Leader
  /** Ends when it begins, or ceases, to lead. */
  leads: (isLeading: boolean) => Promise<void>
  stop: () => Promise<void>
}

function replica(t: Test, api: StandInApi, podName: string, times = TIMES): Replica {
  const stopping = new AbortController()
  const leader = new Leader({
    api: api.client(t),
    namespace: 'culvert-system',
    lease: 'culvert-ca',
    podName,
    log: quietLog().log,
    times,
  })
  const watchers = new Set<() => void>()
  leader.onChange(() => {
    for (const watcher of watchers) watcher()
  })
  const running = leader.run(stopping.signal)
  const stop = async (): Promise<void> => {
    stopping.abort()
    await running
  }
  t.teardown(stop)
  return {
    leader,
    leads: isLeading =>
      new Promise(resolve => {
        const look = (): void => {
          if (leader.isLeading === isLeading) resolve()
        }
        watchers.add(look)
        look()
      }),
    stop,
  }
}

const specOf = (api: StandInApi): Json => api.objects.get(PATH)!['spec'] as Json

await t.test('the first one leads, and renews; the second one waits', async t => {
  const api = await StandInApi.start(t)
  const a = replica(t, api, 'ca-a')
  await a.leads(true)
  t.match(specOf(api), {
    holderIdentity: /^ca-a_/,
    leaseDurationSeconds: 2,
    acquireTime: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/,
    leaseTransitions: 0,
  })
  const { acquireTime } = specOf(api)
  const b = replica(t, api, 'ca-b')
  const renewals = (): number => api.asked('PUT', '/culvert-ca').length
  await api.until(() => renewals() >= 3)
  t.same([a.leader.isLeading, b.leader.isLeading], [true, false])
  t.equal(b.leader.holder, a.leader.identity)
  t.equal(specOf(api)['acquireTime'], acquireTime)
})

await t.test('one of several that begin at once leads', async t => {
  const api = await StandInApi.start(t)
  const all = ['a', 'b', 'c', 'd'].map(name => replica(t, api, name))
  await Promise.race(all.map(({ leads }) => leads(true)))
  await api.until(() => api.asked('PUT', '/culvert-ca').length >= 5)
  t.equal(all.filter(({ leader }) => leader.isLeading).length, 1)
})

await t.test('one that stops gives the lease back, and the next one need not wait for its end', async t => {
  const api = await StandInApi.start(t)
  const times = { leaseMs: 3600_000, renewDeadlineMs: 1000, retryMs: 100 }
  const a = replica(t, api, 'ca-a', times)
  await a.leads(true)
  const b = replica(t, api, 'ca-b', times)
  await a.stop()
  t.equal(a.leader.isLeading, false)
  await b.leads(true)
  t.match(specOf(api), { holderIdentity: /^ca-b_/, leaseTransitions: 1 })
})

await t.test('when the holder is gone, another one leads after the lease, and not before', async t => {
  const api = await StandInApi.start(t)
  // Its clock is wrong by years: only what is seen of it counts.
  const spec = { holderIdentity: 'gone', leaseDurationSeconds: 1, renewTime: '2040-01-01T00:00:00.000000Z' }
  api.put(PATH, { metadata: {}, spec })
  const startMs = performance.now()
  const b = replica(t, api, 'ca-b')
  await b.leads(true)
  t.ok(performance.now() - startMs >= 1000)
  t.match(specOf(api), { holderIdentity: b.leader.identity, leaseTransitions: 1 })
})

for (const [what, fault] of [
  ['hangs', 'hang'],
  ['refuses', { status: 403 }],
  ['is away', 'cut'],
] as const)
  await t.test(`when the API server ${what}, the leader ceases to lead before its lease ends`, async t => {
    const api = await StandInApi.start(t)
    const a = replica(t, api, 'ca-a')
    await a.leads(true)
    api.fault = () => fault
    const startMs = performance.now()
    await a.leads(false)
    const tookMs = performance.now() - startMs
    t.ok(tookMs < TIMES.leaseMs, `after ${Math.round(tookMs)} ms`)
    api.fault = () => undefined
    await a.leads(true)
  })

await t.test('a leader whose lease another one has taken ceases at once', async t => {
  const api = await StandInApi.start(t)
  const a = replica(t, api, 'ca-a')
  await a.leads(true)
  api.put(PATH, { metadata: {}, spec: { ...specOf(api), holderIdentity: 'somebody' } })
  await a.leads(false)
  t.equal(a.leader.holder, 'somebody')
})

await t.test('a leader whose lease was edited or removed puts it right and goes on', async t => {
  const api = await StandInApi.start(t)
  const a = replica(t, api, 'ca-a')
  await a.leads(true)
  api.put(PATH, { ...api.objects.get(PATH), metadata: { labels: { edited: 'yes' } } })
  const puts = api.asked('PUT', '/culvert-ca').length
  await api.until(() => api.asked('PUT', '/culvert-ca').length >= puts + 3)
  t.equal(a.leader.isLeading, true)
  api.objects.delete(PATH)
  await api.until(() => api.objects.has(PATH))
  await a.leads(true)
  t.equal(specOf(api)['holderIdentity'], a.leader.identity)
})

await t.test('one that is stopped while it takes the lease gives it back all the same', async t => {
  const api = await StandInApi.start(t)
  const asked = new EventTarget()
  api.fault = ({ method }) => {
    if (method === 'POST') asked.dispatchEvent(new Event('taking'))
    return undefined
  }
  const taking = once(asked, 'taking')
  const a = replica(t, api, 'ca-a')
  await taking
  await a.stop()
  t.equal(a.leader.isLeading, false)
  const b = replica(t, api, 'ca-b', { ...TIMES, leaseMs: 5000 })
  await b.leads(true)
})
