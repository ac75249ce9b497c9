import * as fc from 'fast-check'
import t from 'tap'
import { TrafficSeries } from '../../../agent/observe/traffic-series.ts'
import type { ConnectionRecord, PeerInfo, TrafficReport } from '../../../agent/worker/messages.ts'
import { responseFlag } from '../../../agent/worker/response-flags.ts'
import { Traffic } from '../../../agent/worker/traffic.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { connectionRecord } from '../../helpers/records.ts'
import { ThreadTraffic } from '../../helpers/thread-traffic.ts'

const from = (workload: string, id = 1) =>
  connectionRecord({ id, source: { ip: '10.0.0.1', port: 1, workload } })

await t.test('a series is described once and is a number from then on', t => {
  const reports: TrafficReport[] = []
  const threads = new ThreadTraffic((_thread, report) => reports.push(report))
  threads.opened(connectionRecord({ id: 1 }))
  threads.opened(connectionRecord({ id: 2 }), 0, false)
  threads.closed(connectionRecord({ id: 1 }))
  threads.tell()
  t.equal(reports.length, 2, 'nothing to tell is not told')
  const [first, second] = reports as [TrafficReport, TrafficReport]
  const { source, destination, service } = connectionRecord()
  const nameOf = ({ workload, namespace, identity, cluster }: PeerInfo) => {
    return { workload, namespace, identity, cluster }
  }
  t.strictSame(first.changes, [
    {
      id: 1,
      labels: {
        direction: 'outbound',
        source: nameOf(source),
        destination: nameOf(destination),
        service,
        isMutual: true,
        flag: '-',
        isOther: false,
      },
      opened: 1,
      closed: 0,
      failed: 0,
      received: 0,
      sent: 0,
      open: 1,
    },
  ])
  t.strictSame(second, {
    changes: [
      { id: 1, labels: undefined, opened: 1, closed: 1, failed: 0, received: 100, sent: 2000, open: 1 },
    ],
    reasons: [{ direction: 'outbound', word: 'mtls', count: 1 }],
    errors: [],
    forgotten: [],
  })
  t.end()
})

await t.test('ports, addresses and times make no series, identities only where they were proved', t => {
  const traffic = new Traffic()
  const { source, destination } = connectionRecord()
  for (let port = 1; port < 100; port++)
    traffic.closed(
      connectionRecord({
        id: port,
        source: { ...source, port, ip: `10.1.0.${port}` },
        destination: { ...destination, port, ip: `10.2.0.${port}` },
        openedAtMs: port,
        durationMs: port,
      }),
    )
  t.equal(traffic.size, 1)
  for (const identity of ['a', 'b', 'c'])
    traffic.closed(connectionRecord({ reason: 'peer-not-enrolled', source: { ...source, identity } }))
  t.equal(traffic.size, 2)
  for (const identity of ['a', 'b', 'c'])
    traffic.closed(connectionRecord({ source: { ...source, identity } }))
  t.equal(traffic.size, 5)
  t.end()
})

await t.test('series that have nothing open are let go, and known under another number later', t => {
  const reports: TrafficReport[] = []
  const threads = new ThreadTraffic((_thread, report) => reports.push(report))
  threads.opened(from('a', 1), 0, false)
  threads.closed(from('b', 2), 0, false)
  threads.letGo()
  t.equal(threads.size(), 2, 'one is open, the other has not been told')
  threads.tell()
  threads.letGo()
  t.equal(threads.size(), 1)
  threads.closed(from('b', 3))
  threads.closed(from('a', 1))
  t.match(reports.slice(1), [
    { forgotten: [2], changes: [{ id: 3, labels: { source: { workload: 'b' } }, closed: 1 }] },
    { forgotten: [], changes: [{ id: 1, labels: undefined, closed: 1, open: 0 }] },
  ])
  t.end()
})

await t.test('beyond the cap room is made, at most once a second, and the others count together', t => {
  const clock = new FakeClock()
  const series = new TrafficSeries()
  const threads = new ThreadTraffic((thread, report) => series.take(thread, report), { mostSeries: 3, clock })
  threads.opened(from('open', 1))
  for (const [at, workload] of ['a', 'b', 'c'].entries()) threads.closed(from(workload, 10 + at))
  t.equal(threads.size(), 2, 'c came when a and b had been told')
  for (const [at, workload] of ['d', 'e', 'f'].entries()) threads.closed(from(workload, 20 + at))
  t.equal(threads.size(), 3, 'd was the last for whom there was room')
  t.equal(series.folded, 2)
  t.match(series.text(), /connections_closed_total\{[^\n]*source_workload="other"[^\n]* 2\n/)
  clock.advance(1000)
  threads.closed(from('e', 30))
  t.equal(threads.size(), 2)
  threads.closed(from('open', 1))
  t.match(series.text(), /connections_closed_total\{[^\n]*source_workload="open"[^\n]* 1\n/)
  t.equal(series.open, 0)
  t.equal(series.size, 6, 'open, a, b, c, d, e: the main thread keeps them longer')
  t.end()
})

await t.test('a thread whose series are all open counts newcomers together, until there is room', t => {
  const clock = new FakeClock()
  const series = new TrafficSeries()
  const threads = new ThreadTraffic((thread, report) => series.take(thread, report), { mostSeries: 2, clock })
  for (const [id, workload] of ['a', 'b', 'c', 'd'].entries()) threads.opened(from(workload, id))
  t.equal(series.open, 4)
  t.equal(series.folded, 2)
  threads.closed(from('a', 0))
  clock.advance(1000)
  threads.closed(from('c', 2))
  t.equal(series.open, 2)
  t.match(series.text(), /connections_opened_total\{[^\n]*source_workload="other"[^\n]* 2\n/)
  t.match(series.text(), /connections_closed_total\{[^\n]*source_workload="c"[^\n]* 1\n/)
  threads.closed(from('d', 3))
  threads.closed(from('b', 1))
  t.equal(series.open, 0)
  t.end()
})

await t.test('so many codes or series are worth a report', t => {
  const traffic = new Traffic()
  for (let at = 0; at < 63; at++) traffic.closed(connectionRecord({ error: 'no', errorCode: `E${at}` }))
  t.notOk(traffic.isFull)
  traffic.closed(connectionRecord({ direction: 'inbound', error: 'no' }))
  t.ok(traffic.isFull)
  t.equal(traffic.take()!.errors.length, 64)
  for (let at = 0; at < 511; at++) traffic.closed(from(`w${at}`))
  t.notOk(traffic.isFull)
  traffic.closed(from('one more'))
  t.ok(traffic.isFull)
  t.equal(traffic.take()!.changes.length, 512)
  t.notOk(traffic.isFull)
  t.end()
})

await t.test('a connection whose name or word changes ends where it ended, and is open nowhere', t => {
  const series = new TrafficSeries()
  const threads = new ThreadTraffic((thread, report) => series.take(thread, report))
  threads.opened(from('before', 1))
  threads.closed({ ...from('after', 1), reason: 'unreachable', error: 'no' })
  const text = series.text()
  t.match(text, /connections_opened_total\{[^\n]*source_workload="before"[^\n]*flags="-"[^\n]* 1\n/)
  t.match(text, /connections_closed_total\{[^\n]*source_workload="before"[^\n]* 0\n/)
  t.match(text, /connections_opened_total\{[^\n]*source_workload="after"[^\n]*flags="CONNECT"[^\n]* 0\n/)
  t.match(text, /connections_failed_total\{[^\n]*source_workload="after"[^\n]*flags="CONNECT"[^\n]* 1\n/)
  t.equal(series.open, 0)
  t.end()
})

/** What each series should show, by counting connections one at a time. */
class Plain {
  readonly counts = new Map<string, number[]>()

  add(record: ConnectionRecord, flag: string, by: readonly number[]): void {
    const { direction, source, destination, service, reason } = record
    const isMutual = reason === 'mtls'
    const nameOf = ({ workload, namespace, identity, cluster }: PeerInfo) =>
      [workload, namespace, isMutual ? identity : undefined, cluster].map(text => text ?? 'unknown')
    const reporter = direction === 'outbound' ? 'source' : 'destination'
    const words = [reporter, ...nameOf(source), ...nameOf(destination), service?.hostname ?? 'unknown', flag]
    const key = [...words, isMutual ? 'mutual_tls' : 'unknown'].join('|')
    const before = this.counts.get(key) ?? [0, 0, 0, 0, 0]
    this.counts.set(
      key,
      before.map((count, at) => count + by[at]!),
    )
  }
}

const SHOWN = [
  'reporter',
  'source_workload',
  'source_workload_namespace',
  'source_principal',
  'source_cluster',
  'destination_workload',
  'destination_workload_namespace',
  'destination_principal',
  'destination_cluster',
  'destination_service',
  'response_flags',
  'connection_security_policy',
]
const COUNTERS = [
  'connections_opened',
  'connections_closed',
  'connections_failed',
  'received_bytes',
  'sent_bytes',
]

function shown(text: string): Map<string, number[]> {
  const counts = new Map<string, number[]>()
  for (const [, name, labels, value] of text.matchAll(/^istio_tcp_(\w+)_total\{(.*)\} (\d+)$/gm)) {
    const byName = Object.fromEntries([...labels!.matchAll(/(\w+)="([^"]*)"/g)].map(([, k, v]) => [k, v]))
    const key = SHOWN.map(label => byName[label]).join('|')
    const all = counts.get(key) ?? [0, 0, 0, 0, 0]
    all[COUNTERS.indexOf(name!)] = Number(value)
    counts.set(key, all)
  }
  return counts
}

const end = fc.record({
  ip: fc.constant('10.0.0.1'),
  port: fc.integer({ min: 1, max: 65_535 }),
  workload: fc.constantFrom('a', 'b', undefined),
  namespace: fc.constantFrom('shop', undefined),
  identity: fc.constantFrom('spiffe://x/ns/shop/sa/a', 'spiffe://x/ns/shop/sa/b', undefined),
  cluster: fc.constantFrom('k', undefined),
})
const service = fc.constantFrom(undefined, { namespace: 'shop', name: 's', hostname: 's.shop' })
const facts = fc.record({
  direction: fc.constantFrom('outbound' as const, 'inbound' as const),
  source: end,
  destination: end,
  service,
})
const life = fc.record({
  thread: fc.integer({ min: 0, max: 1 }),
  begins: fc.option(fc.record({ facts, reason: fc.constantFrom('mtls' as const, 'peer-unknown' as const) })),
  ends: fc.option(
    fc.record({
      facts: fc.option(facts),
      reason: fc.constantFrom('policy' as const, 'unreachable' as const),
      bytesSent: fc.nat(1000),
      bytesReceived: fc.nat(1000),
      error: fc.constantFrom(undefined, 'no'),
      errorCode: fc.constantFrom(undefined, 'PROTOCOL_ERROR'),
    }),
  ),
  isTold: fc.boolean(),
  isLetGo: fc.boolean(),
})

await t.test('reported as sums, whenever, every series shows what it would connection by connection', () => {
  fc.assert(
    fc.property(fc.array(life, { maxLength: 40 }), fc.boolean(), (lives, inTurn) => {
      const series = new TrafficSeries()
      const threads = new ThreadTraffic((thread, report) => series.take(thread, report))
      const plain = new Plain()
      let open = 0
      const beginnings = lives.map(({ thread, begins, isTold }, id) => () => {
        if (!begins) return
        const record = connectionRecord({ ...begins.facts, id, reason: begins.reason })
        threads.opened(record, thread, isTold)
        plain.add(record, '-', [1, 0, 0, 0, 0])
        open++
      })
      const endings = lives.map(({ thread, begins, ends, isTold, isLetGo }, id) => () => {
        if (!ends) return
        const { facts: changed, reason, ...result } = ends
        const fields = { ...(changed ?? begins?.facts), ...result, reason: begins?.reason ?? reason }
        const record = connectionRecord({ ...fields, id })
        threads.closed(record, thread, isTold)
        if (isLetGo) threads.letGo(thread)
        const failed = result.error === undefined ? 0 : 1
        const by = [begins ? 0 : 1, 1, failed, result.bytesSent, result.bytesReceived]
        plain.add(record, responseFlag(record.reason, record.errorCode), by)
        if (begins) open--
      })
      const events = inTurn
        ? beginnings.flatMap((begin, at) => [begin, endings[at]!])
        : [...beginnings, ...endings]
      for (const happens of events) happens()
      for (const thread of [0, 1]) threads.tell(thread)
      const got = shown(series.text())
      if (series.open !== open) throw new Error(`${series.open} open, not ${open}`)
      const sorted = (counts: Map<string, number[]>) =>
        JSON.stringify([...counts].sort(([a], [b]) => a.localeCompare(b)))
      if (sorted(got) !== sorted(plain.counts)) throw new Error(`${sorted(got)}\n${sorted(plain.counts)}`)
    }),
    { numRuns: 300 },
  )
  return Promise.resolve()
})
