import { EventEmitter, once } from 'node:events'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Code, ConnectError } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { Channel } from '../../../agent/identity/channel.ts'
import { PodState, ReportClient, type ReportClientOptions } from '../../../agent/identity/report-client.ts'
import { systemClock } from '../../../lib/clock.ts'
import { ReportService, type ReportRequest } from '../../../lib/proto/gen/culvert/v1/report_pb.js'
import { startConnectServer } from '../../helpers/connect-server.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { createRoot, issueServer } from '../../helpers/test-pki.ts'

const root = await createRoot('root')
const credentials = await issueServer(root)
const CLIENT = { uid: 'u1', namespace: 'shop', name: 'client' }
const SERVER = { uid: 'u2', namespace: 'shop', name: 'server' }

interface Collector {
  readonly reports: ReportRequest[]
  readonly client: ReportClient
  readonly lines: ReturnType<typeof quietLog>['lines']
  /** Throws, or gives the unknown pods. */
  answer: (request: ReportRequest) => string[] | Promise<string[]>
  /** The next report that arrives. */
  next: () => Promise<ReportRequest>
  stop: () => Promise<void>
  restart: () => Promise<void>
  readonly ended: Promise<void>
}

async function collector(
  t: Test,
  options: Partial<ReportClientOptions> = {},
  isOffered = true,
): Promise<Collector> {
  const found = await starting(t, options, isOffered)
  found.client.complete()
  return found
}

/** Before the agent knows its pods. */
async function starting(
  t: Test,
  options: Partial<ReportClientOptions> = {},
  isOffered = true,
): Promise<Collector> {
  const events = new EventEmitter()
  const reports: ReportRequest[] = []
  let taken = 0
  const listen = (port?: number) =>
    startConnectServer(
      credentials,
      router => {
        if (!isOffered) return
        router.service(ReportService, {
          report: async request => {
            const unknownPods = await found.answer(request)
            reports.push(request)
            events.emit('report')
            return { unknownPods }
          },
        })
      },
      port,
    )
  let server = await listen()
  const { log, lines } = quietLog()
  const channel = new Channel({ url: server.url, roots: () => root.pem })
  const client = new ReportClient({
    channel,
    token: () => 'token',
    instance: 'instance-1',
    startedAtMs: 1_700_000_000_000,
    log,
    ...options,
  })
  const stopping = new AbortController()
  const ended = client.run(stopping.signal)
  t.teardown(async () => {
    stopping.abort()
    await ended
    channel.close()
    await server.stop()
  })
  const found: Collector = {
    reports,
    client,
    lines,
    ended,
    answer: () => [],
    async next() {
      while (reports.length <= taken) await once(events, 'report')
      return reports[taken++]!
    },
    stop: () => server.stop(),
    async restart() {
      server = await listen(server.port)
    },
  }
  return found
}

const said = (report: ReportRequest) =>
  report.pods.map(({ podUid, state, detail }) => [podUid, state, detail])

await t.test('the first report is full; what changes together afterwards goes together', async t => {
  const { client, next } = await collector(t)
  const first = await next()
  t.match(first, { full: true, instance: 'instance-1', startedAtMs: 1_700_000_000_000n, pods: [] })
  client.set(CLIENT, PodState.PENDING, 'no certificate yet')
  client.set(SERVER, PodState.ENROLLED)
  client.set(CLIENT, PodState.ENROLLED)
  const second = await next()
  t.equal(second.full, false)
  t.strictSame(said(second), [
    ['u1', PodState.ENROLLED, ''],
    ['u2', PodState.ENROLLED, ''],
  ])
  t.match(second.pods[0], { namespace: 'shop', name: 'client' })
  t.ok(Number(second.pods[0]!.observedAtMs) > 1_700_000_000_000)
})

await t.test('until the agent knows its pods it never claims to name them all', async t => {
  const it = await starting(t)
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  it.client.repeat()
  t.match(await it.next(), { full: false, pods: [{ podUid: 'u1' }] })
  t.match(await it.next(), { full: false, pods: [{ podUid: 'u1' }] })
  it.client.complete()
  await it.client.flush()
  t.match(await it.next(), { full: true, pods: [{ podUid: 'u1' }] })
})

await t.test('saying the same again sends nothing', async t => {
  const { client, next, reports } = await collector(t)
  client.set(CLIENT, PodState.ENROLLED)
  await client.flush()
  const before = reports.length
  client.set(CLIENT, PodState.ENROLLED)
  await client.flush()
  client.set(CLIENT, PodState.DRIFTED, 'rules')
  await client.flush()
  t.equal(reports.length, before + 1)
  for (let at = 0; at < before; at++) await next()
  t.strictSame(said(await next()), [['u1', PodState.DRIFTED, 'rules']])
})

await t.test('a pod that is gone is reported as not enrolled, once', async t => {
  const { client, reports } = await collector(t)
  client.set(CLIENT, PodState.ENROLLED)
  await client.flush()
  client.remove('u1')
  client.remove('u1')
  client.remove('never known')
  await client.flush()
  t.strictSame(said(reports.at(-1)!), [['u1', PodState.NOT_ENROLLED, '']])
  t.equal(reports.at(-1)!.full, false)
})

await t.test('after a failure everything is told again', async t => {
  const it = await collector(t)
  await it.next()
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  await it.next()
  let failures = 0
  it.answer = () => {
    if (++failures === 1) throw new ConnectError('not now', Code.Unavailable)
    return []
  }
  it.client.set(SERVER, PodState.ENROLLED)
  const report = await it.next()
  t.equal(report.full, true)
  t.equal(report.pods.length, 2)
})

await t.test('repeat tells everything again at once', async t => {
  const it = await collector(t)
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  const before = it.reports.length
  it.client.repeat()
  for (let at = 0; at < before; at++) await it.next()
  t.match(await it.next(), { full: true, pods: [{ podUid: 'u1' }] })
})

await t.test('repeat ends the pause after a failure', async t => {
  const never = { cancel: () => undefined }
  const clock = {
    ...systemClock,
    after: (ms: number, run: () => void) => (ms > 20 ? never : systemClock.after(ms, run)),
  }
  const it = await collector(t, { clock })
  await it.next()
  const failed = Promise.withResolvers<void>()
  it.answer = () => {
    it.answer = () => []
    failed.resolve()
    throw new ConnectError('not now', Code.Unavailable)
  }
  it.client.set(CLIENT, PodState.ENROLLED)
  await failed.promise
  while (!it.lines.some(({ msg }) => msg === 'report failed')) await nextTurn()
  it.client.repeat()
  t.match(await it.next(), { full: true, pods: [{ podUid: 'u1' }] })
})

await t.test('a server that was started anew hears everything', async t => {
  const it = await collector(t)
  await it.next()
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  await it.next()
  await it.stop()
  it.client.set(SERVER, PodState.ENROLLED)
  await it.restart()
  let report = await it.next()
  if (!report.full) report = await it.next()
  t.equal(report.full, true)
  t.strictSame(
    said(report)
      .map(([uid]) => uid)
      .toSorted((a, b) => (a! < b! ? -1 : 1)),
    ['u1', 'u2'],
  )
})

await t.test('everything is told again after a while', async t => {
  const { client, next } = await collector(t, { fullEveryMs: 20 })
  client.set(CLIENT, PodState.ENROLLED)
  await client.flush()
  for (let at = 0; at < 4; at++) await next()
  const later = await next()
  t.equal(later.full, true)
  t.strictSame(said(later), [['u1', PodState.ENROLLED, '']])
})

await t.test('flush waits for the acknowledgement, and says so when there is none', async t => {
  const it = await collector(t)
  await it.next()
  const gate = Promise.withResolvers<string[]>()
  it.answer = () => gate.promise
  it.client.set(CLIENT, PodState.ENROLLED)
  await t.rejects(it.client.flush(30), { code: 'TIMEOUT', message: /acknowledge .* 30 ms/ })
  const acknowledged = it.client.flush()
  gate.resolve([])
  await acknowledged
  await it.client.flush(0)
})

await t.test('a pod that the server does not know yet is told again before the minute is over', async t => {
  const it = await collector(t)
  await it.next()
  it.answer = () => ['u1']
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  await it.next()
  it.answer = () => []
  const again = await it.next()
  t.equal(again.full, true)
  t.strictSame(said(again), [['u1', PodState.ENROLLED, '']])
})

await t.test('a server without the service hears nothing more, and flush does not wait for it', async t => {
  const it = await collector(t, {}, false)
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.ended
  await it.client.flush(0)
  it.client.set(CLIENT, PodState.DRIFTED)
  await it.client.flush(0)
  t.equal(it.lines.filter(line => /takes no reports/.test(line.msg)).length, 1)
})

await t.test('refusals are logged, and tried again', async t => {
  const it = await collector(t)
  await it.next()
  let refusals = 0
  it.answer = () => {
    if (++refusals < 3) throw new ConnectError('not now', Code.Unavailable)
    return []
  }
  it.client.set(CLIENT, PodState.ENROLLED)
  await it.client.flush()
  t.equal(refusals, 3)
  t.equal(it.lines.filter(line => line.msg === 'report failed').length, 2)
  t.notMatch(JSON.stringify(it.lines), /Bearer/)
})

const REFUSAL = {
  podUid: 'u2',
  direction: 'inbound',
  reason: 'strict',
  peer: 'shop/client',
  port: 8080,
  count: 1,
} as const

await t.test('what happened to pods goes along with what is said of them', async t => {
  const { client, next } = await collector(t)
  await next()
  client.refused([REFUSAL, { ...REFUSAL, count: 4 }, { ...REFUSAL, direction: 'outbound' }])
  client.repaired('u1', 'IPv4 nat: gone', '')
  client.repaired('u1', 'IPv4 nat: changed', 'iptables (pid 42)')
  client.set(CLIENT, PodState.ENROLLED)
  const report = await next()
  t.match(report, {
    full: false,
    refusals: [
      { podUid: 'u2', reason: 'strict', outbound: false, peer: 'shop/client', port: 8080, count: 5 },
      { outbound: true, count: 1 },
    ],
    repairs: [{ podUid: 'u1', what: 'IPv4 nat: changed', by: 'iptables (pid 42)', count: 2 }],
  })
  client.set(CLIENT, PodState.DRIFTED)
  t.match(await next(), { refusals: [], repairs: [] }, 'once')
})

await t.test('when nothing else is said it goes by itself after some time', async t => {
  const { client, next, reports } = await collector(t, { noticesMs: 30 })
  await next()
  client.refused([REFUSAL])
  t.equal(reports.length, 1)
  const report = await next()
  t.match(report, { full: false, pods: [], refusals: [{ count: 1 }] })
})

await t.test(
  'what happened is told again when the call failed, and not lost with what comes meanwhile',
  async t => {
    const collected = await collector(t, { noticesMs: 1 })
    const { client, next } = collected
    await next()
    const failed = Promise.withResolvers<void>()
    collected.answer = () => {
      collected.answer = () => []
      failed.resolve()
      throw new ConnectError('busy', Code.Unavailable)
    }
    client.refused([REFUSAL])
    client.repaired('u1', 'first', '')
    await failed.promise
    client.refused([REFUSAL])
    client.repaired('u1', 'second', '')
    t.match(await next(), { refusals: [{ count: 2 }], repairs: [{ what: 'second', count: 2 }] })
  },
)

await t.test('not more is kept of it than so much', async t => {
  const { client, next } = await collector(t)
  await next()
  const many = Array.from({ length: 2000 }, (_, at) => ({ ...REFUSAL, peer: `10.0.${at >> 8}.${at & 255}` }))
  client.refused(many)
  for (let at = 0; at < 500; at++) client.repaired(`pod-${at}`, 'x'.repeat(5000), '')
  client.set(CLIENT, PodState.ENROLLED)
  const { refusals, repairs } = await next()
  t.equal(refusals.length, 501)
  t.match(refusals.at(-1), { peer: 'others', port: 0, count: 1500 })
  t.equal(repairs.length, 100)
  t.ok(repairs.every(({ what }) => what.length === 1024))
})
