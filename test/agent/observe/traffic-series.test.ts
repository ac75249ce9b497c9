import * as fc from 'fast-check'
import t from 'tap'
import { TrafficSeries, type TrafficSeriesOptions } from '../../../agent/observe/traffic-series.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { connectionRecord } from '../../helpers/records.ts'
import { ThreadTraffic } from '../../helpers/thread-traffic.ts'
import { codePoint } from '../../helpers/code-point.ts'

function trafficSeries(options?: TrafficSeriesOptions) {
  const series = new TrafficSeries(options)
  return { series, threads: new ThreadTraffic((thread, report) => series.take(thread, report)) }
}

/** Metric name, labels and value of each line. */
function parse(text: string): { name: string; labels: Record<string, string>; value: number }[] {
  return text
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
    .map(line => {
      const match = /^([a-z_]+)\{(.*)\} (\d+)$/.exec(line)
      if (!match) throw new Error(`not a sample: ${line}`)
      const labels: Record<string, string> = {}
      for (const [, name, value] of match[2]!.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g))
        labels[name!] = value!
      return { name: match[1]!, labels, value: Number(match[3]) }
    })
}

const sum = (text: string, name: string) =>
  parse(text)
    .filter(sample => sample.name === `istio_tcp_${name}_total`)
    .reduce((total, { value }) => total + value, 0)

await t.test('a connection shows under the names and labels of the field', async t => {
  const { series, threads } = trafficSeries()
  threads.opened(connectionRecord(), 0)
  threads.closed(connectionRecord(), 0)
  const samples = parse(series.text())
  t.match(
    samples.find(({ name }) => name === 'istio_tcp_connections_opened_total'),
    {
      value: 1,
      labels: {
        reporter: 'source',
        source_workload: 'client',
        source_workload_namespace: 'shop',
        source_principal: 'spiffe://cluster.local/ns/shop/sa/client',
        source_cluster: 'Kubernetes',
        source_app: 'unknown',
        destination_service: 'echo.shop.svc.cluster.local',
        destination_service_name: 'echo',
        destination_service_namespace: 'shop',
        destination_workload: 'server',
        destination_principal: 'spiffe://cluster.local/ns/shop/sa/server',
        request_protocol: 'tcp',
        response_flags: '-',
        connection_security_policy: 'mutual_tls',
      },
    },
  )
  t.equal(sum(series.text(), 'received_bytes'), 100, 'what the client sent')
  t.equal(sum(series.text(), 'sent_bytes'), 2000, 'what the server sent')
  t.equal(sum(series.text(), 'connections_failed'), 0)
})

await t.test('plaintext shows no principal, and a failure shows its flag', async t => {
  const { series, threads } = trafficSeries()
  for (const [reason, flag] of [
    ['policy', 'DENY'],
    ['strict', 'DENY'],
    ['unreachable', 'CONNECT'],
    ['no-endpoint', 'CONNECT'],
    ['tls', 'TLS_FAILURE'],
    ['identity', 'IDENTITY_ERROR'],
  ] as const) {
    threads.closed(connectionRecord({ reason, error: 'no' }), 0)
    const failed = parse(series.text()).find(({ labels }) => labels['response_flags'] === flag)
    t.match(failed?.labels, { source_principal: 'unknown', connection_security_policy: 'unknown' }, reason)
  }
  t.equal(sum(series.text(), 'connections_failed'), 6)
  t.equal(sum(series.text(), 'connections_opened'), 6, 'a refused connection was one as well')
})

await t.test('hostile names stay one label and one line', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: codePoint(), maxLength: 400 }), async workload => {
      const { series, threads } = trafficSeries()
      threads.closed(connectionRecord({ source: { ip: '10.0.0.1', port: 1, workload } }), 0)
      const samples = parse(series.text())
      if (samples.length !== 5) throw new Error(`${samples.length} samples`)
      if (Object.keys(samples[0]!.labels).length !== 23) throw new Error('another number of labels')
    }),
  )
})

await t.test(
  'names that differ only in what cannot be shown are one series, not one series twice',
  async t => {
    const { series, threads } = trafficSeries()
    for (const workload of ['a\r', 'a\u0000', 'a\ud800'])
      threads.closed(connectionRecord({ source: { ip: '10.0.0.1', port: 1, workload } }), 0)
    t.equal(parse(series.text()).length, 5)
  },
)

await t.test('beyond the cap newcomers are counted together, and nothing is lost', async t => {
  const { series, threads } = trafficSeries({ mostSeries: 10 })
  for (let at = 0; at < 1000; at++)
    threads.closed(connectionRecord({ id: at, source: { ip: '10.0.0.1', port: 1, workload: `w${at}` } }), 0)
  t.equal(series.size, 10)
  t.equal(series.folded, 990)
  t.equal(sum(series.text(), 'connections_closed'), 1000)
  const other = parse(series.text()).find(({ labels }) => labels['source_workload'] === 'other')
  t.match(other, {
    value: 990,
    labels: { destination_workload: 'other', reporter: 'source', response_flags: '-' },
  })
})

await t.test('a series that is idle for ten minutes goes, unless a connection of it is open', async t => {
  const clock = new FakeClock()
  const { series, threads } = trafficSeries({ mostSeries: 3, clock })
  const of = (id: number) => connectionRecord({ id, source: { ip: '10.0.0.1', port: 1, workload: `w${id}` } })
  threads.opened(of(1), 0)
  threads.closed(of(2), 0)
  clock.advance(599_000)
  threads.closed(of(3), 0)
  clock.advance(1_000)
  threads.closed(of(4), 0)
  t.equal(series.folded, 0, 'room was made by the idle one')
  clock.advance(700_000)
  const text = series.text()
  t.match(text, /source_workload="w1"/)
  t.notMatch(text, /source_workload="w[234]"/)
  threads.closed(of(1), 0)
  clock.advance(700_000)
  series.text()
  t.equal(series.size, 0)
})

await t.test(
  'connections of several threads are told apart, and those of a dead thread are over',
  async t => {
    const { series, threads } = trafficSeries()
    threads.opened(connectionRecord({ id: 7 }), 1)
    threads.opened(connectionRecord({ id: 7 }), 2)
    t.equal(series.open, 2)
    series.threadGone(1)
    t.equal(series.open, 1)
    threads.closed(connectionRecord({ id: 7 }), 2)
    t.equal(series.open, 0)
    t.equal(sum(series.text(), 'connections_opened'), 2)
    t.equal(sum(series.text(), 'connections_closed'), 2)
  },
)
