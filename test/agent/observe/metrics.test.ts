import t from 'tap'
import { AgentMetrics } from '../../../agent/observe/metrics.ts'
import type { CertificateStatus } from '../../../agent/identity/manager.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { connectionRecord } from '../../helpers/records.ts'
import { ThreadTraffic } from '../../helpers/thread-traffic.ts'

const certificate = (
  uid: string,
  account: string,
  more: Partial<CertificateStatus> = {},
): CertificateStatus => ({
  uid,
  identity: `spiffe://cluster.local/ns/shop/sa/${account}`,
  state: 'valid',
  alarm: false,
  failures: 0,
  ...more,
})

await t.test('every connection is counted under exactly one reason', async t => {
  const metrics = new AgentMetrics({ version: '1' })
  const threads = new ThreadTraffic((thread, report) => metrics.traffic(report, thread))
  threads.opened(connectionRecord())
  threads.closed(connectionRecord())
  threads.closed(
    connectionRecord({ direction: 'inbound', reason: 'strict', error: 'no', errorCode: 'ECONNRESET' }),
  )
  const text = await metrics.text()
  t.match(text, 'culvert_connections_total{direction="outbound",reason="mtls"} 1')
  t.match(text, 'culvert_connections_total{direction="inbound",reason="strict"} 1')
  t.match(text, 'culvert_connection_errors_total{direction="inbound",code="ECONNRESET"} 1')
  t.match(text, 'culvert_connections_open 0')
  t.match(text, 'istio_tcp_connections_closed_total{')
})

await t.test('error codes that nobody could list are counted together', async t => {
  const metrics = new AgentMetrics({ version: '1' })
  const threads = new ThreadTraffic((thread, report) => metrics.traffic(report, thread))
  for (let at = 0; at < 200; at++) threads.closed(connectionRecord({ error: 'no', errorCode: `CODE_${at}` }))
  threads.closed(connectionRecord({ error: 'no', errorCode: 'not a "code"' }))
  threads.closed(connectionRecord({ error: 'no' }))
  const text = await metrics.text()
  t.equal(text.match(/^culvert_connection_errors_total\{/gm)?.length, 66)
  t.match(text, 'culvert_connection_errors_total{direction="outbound",code="other"} 137')
  t.match(text, 'culvert_connection_errors_total{direction="outbound",code="none"} 1')
})

await t.test('certificates show the first end of each account, the alarm and the states', async t => {
  const clock = new FakeClock()
  const nowMs = clock.now()
  const certificates = () => [
    certificate('a', 'client', { notAfterMs: nowMs + 60_000 }),
    certificate('b', 'client', { notAfterMs: nowMs + 30_000, state: 'renewal-failing', alarm: true }),
    certificate('c', 'server', { notAfterMs: nowMs - 5_000, state: 'expired', alarm: true }),
    certificate('d', 'new', { state: 'fetching' }),
  ]
  const metrics = new AgentMetrics({ version: '1', clock, sources: { certificates } })
  metrics.certificateFetched({ uid: 'a', identity: 'i', outcome: 'issued', isRenewal: false, durationMs: 20 })
  metrics.certificateFetched({ uid: 'a', identity: 'i', outcome: 'timeout', isRenewal: true, durationMs: 20 })
  const text = await metrics.text()
  t.match(text, 'culvert_certificate_expiry_seconds{namespace="shop",service_account="client"} 30')
  t.match(text, 'culvert_certificate_expiry_seconds{namespace="shop",service_account="server"} -5')
  t.notMatch(text, 'service_account="new"')
  t.match(text, 'culvert_certificates_alarm 2')
  t.match(text, 'culvert_certificates{state="renewal-failing"} 1')
  t.match(text, 'culvert_certificate_fetches_total{kind="first",outcome="issued"} 1')
  t.match(text, 'culvert_certificate_fetches_total{kind="renewal",outcome="timeout"} 1')
  t.match(text, 'culvert_certificate_fetch_duration_seconds_count 1')
})

await t.test('a thousand accounts and more stay a thousand series and one', async t => {
  const certificates = () =>
    Array.from({ length: 1500 }, (_, at) => certificate(`${at}`, `a${at}`, { notAfterMs: 1 }))
  const text = await new AgentMetrics({ version: '1', sources: { certificates } }).text()
  t.equal(text.match(/^culvert_certificate_expiry_seconds\{/gm)?.length, 1001)
})

await t.test('states are asked for at each scrape; what is gone is gone from the answer', async t => {
  let pods: Record<string, number> = { enrolled: 3, pending: 1 }
  const metrics = new AgentMetrics({
    version: '1.2.3',
    sources: {
      podsByState: () => pods,
      discovery: () => ({ isConnected: true, isSynced: false, resources: { workload: 12 } }),
    },
  })
  const first = await metrics.text()
  t.match(first, 'culvert_pods{state="pending"} 1')
  t.match(first, 'culvert_discovery_connected 1')
  t.match(first, 'culvert_discovery_synced 0')
  t.match(first, 'culvert_discovery_resources{kind="workload"} 12')
  t.match(first, 'culvert_build_info{version="1.2.3"} 1')
  pods = { enrolled: 4 }
  const second = await metrics.text()
  t.match(second, 'culvert_pods{state="enrolled"} 4')
  t.notMatch(second, 'state="pending"')
})

await t.test('events of the rest of the agent are counted', async t => {
  const metrics = new AgentMetrics({ version: '1' })
  metrics.redirectDrift('IPv4 nat: CULVERT_OUTPUT is missing')
  for (let at = 0; at < 100; at++) metrics.redirectDrift(`what nobody listed ${at}`)
  metrics.redirectRepaired('repaired')
  metrics.uncaptured('pre-enrolment', 3)
  metrics.uncaptured('pre-enrolment', 0)
  metrics.discoveryTerminated('unavailable')
  metrics.accessLogDropped(2)
  const text = await metrics.text()
  t.match(text, 'culvert_redirect_drift_total{what="IPv4 nat"} 1')
  t.match(text, 'culvert_redirect_drift_total{what="other"} 69')
  t.match(text, 'culvert_redirect_repairs_total{outcome="repaired"} 1')
  t.match(text, 'culvert_uncaptured_packets_total{reason="pre-enrolment"} 3')
  t.match(text, 'culvert_discovery_terminations_total{reason="unavailable"} 1')
  t.match(text, 'culvert_access_log_dropped_lines_total 2')
})

await t.test("threads' totals add up, their levels are summed, and a dead thread's levels go", async t => {
  const metrics = new AgentMetrics({ version: '1' })
  metrics.threadCounters(1, { streams_total: 5, sessions: 2, 'not a name': 1, broken: Number.NaN })
  metrics.threadCounters(1, { streams_total: 5, sessions: 3 })
  metrics.threadCounters(2, { streams_total: 1, sessions: 4 })
  t.match(await metrics.text(), 'culvert_dataplane_streams_total 11')
  t.match(await metrics.text(), 'culvert_dataplane_sessions 7')
  metrics.threadGone(2)
  const text = await metrics.text()
  t.match(text, 'culvert_dataplane_streams_total 11')
  t.match(text, 'culvert_dataplane_sessions 3')
  t.notMatch(text, /not a name|broken/)
  for (let at = 0; at < 1000; at++) metrics.threadCounters(1, { [`n${at}`]: 1 })
  t.ok((await metrics.text()).match(/^culvert_dataplane_/gm)!.length <= 256)
})

await t.test(
  "threads' totals with labels are one metric, however they come, and bounded together",
  async t => {
    const metrics = new AgentMetrics({ version: '1' })
    metrics.threadCounters(1, { 'ended_total{by="us",code="A"}': 2, other_total: 1 })
    metrics.threadCounters(2, {
      'ended_total{by="peer",code="B.1-x"}': 1,
      'ended_total{by="us",code="A"}': 3,
    })
    const bad = [
      '{}',
      '{by}',
      '{by="us"',
      '{by="a"b"}',
      '{by="a\\n"}',
      '{By="a"}',
      '{by="a",}',
      `{by="${'a'.repeat(65)}"}`,
    ]
    for (const labels of bad) metrics.threadCounters(1, { [`ended_total${labels}`]: 1 })
    const lines = (await metrics.text()).split('\n').filter(line => line.includes('_ended_total'))
    t.strictSame(lines, [
      '# HELP culvert_dataplane_ended_total Counted by the data-plane threads',
      '# TYPE culvert_dataplane_ended_total counter',
      'culvert_dataplane_ended_total{by="us",code="A"} 5',
      'culvert_dataplane_ended_total{by="peer",code="B.1-x"} 1',
    ])
    for (let at = 0; at < 1000; at++) metrics.threadCounters(1, { [`ended_total{by="n${at}"}`]: 1 })
    t.ok((await metrics.text()).match(/^culvert_dataplane_/gm)!.length <= 256)
  },
)

await t.test('the process says what it uses, and every line is in the text format', async t => {
  const text = await new AgentMetrics({ version: '1' }).text()
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'process_open_fds',
    'process_max_fds',
  ])
    t.match(text, new RegExp(`^${name} \\d`, 'm'))
  for (const line of text.split('\n'))
    if (line !== '' && !/^# (HELP|TYPE) |^[a-z_:][a-z0-9_:]*(\{.*\})? -?[0-9.e+-]+$/.test(line)) t.fail(line)
})
