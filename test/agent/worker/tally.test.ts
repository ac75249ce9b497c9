import t from 'tap'
import { AgentMetrics } from '../../../agent/observe/metrics.ts'
import { Tally } from '../../../agent/worker/tally.ts'
import { TOO_MANY } from '../../../agent/proxy/pod-context.ts'
import { connectionRecord } from '../../helpers/records.ts'

await t.test('ends of sessions and refusals are counted by labels, as increments', t => {
  const tally = new Tally()
  const calm = { by: 'us', code: 'ENHANCE_YOUR_CALM', limit: 'CONTROL_BURST' } as const
  tally.ended('server', calm)
  tally.ended('server', calm)
  tally.ended('client', { by: 'peer', code: 'NO_ERROR', limit: 'none' })
  tally.refused('server', 'maxConcurrentStreams')
  t.strictSame(tally.take(), {
    'hbone_sessions_ended_total{direction="inbound",by="us",code="ENHANCE_YOUR_CALM",limit="CONTROL_BURST"}': 2,
    'hbone_sessions_ended_total{direction="outbound",by="peer",code="NO_ERROR",limit="none"}': 1,
    'hbone_streams_refused_total{direction="inbound",why="maxConcurrentStreams"}': 1,
  })
  t.strictSame(tally.take(), {}, 'each is told once')
  t.end()
})

await t.test('handshakes that came to nothing are counted by why', t => {
  const tally = new Tally()
  const failed = (errorCode: string | undefined) =>
    tally.closed(connectionRecord({ direction: 'inbound', reason: 'tls', error: 'no', errorCode }))
  failed('TOO_MANY_HANDSHAKES')
  failed('ERR_TLS_HANDSHAKE_TIMEOUT')
  for (const code of ['CERT_HAS_EXPIRED', 'ECONNRESET', 'constructor', undefined]) failed(code)
  t.strictSame(tally.take(), {
    'hbone_handshakes_failed_total{why="gave_way"}': 1,
    'hbone_handshakes_failed_total{why="late"}': 1,
    'hbone_handshakes_failed_total{why="failed"}': 4,
  })
  t.end()
})

await t.test('connections over the limit of a pod are counted, what a peer says of its own is not', t => {
  const tally = new Tally()
  tally.closed(connectionRecord({ ...TOO_MANY, direction: 'outbound' }))
  tally.closed(connectionRecord({ ...TOO_MANY, direction: 'inbound' }))
  tally.closed(connectionRecord({ ...TOO_MANY, error: 'peer answered 503 (TOO_MANY_CONNECTIONS)' }))
  tally.closed(connectionRecord())
  t.strictSame(tally.take(), {
    'connections_refused_total{direction="outbound",limit="maxConnections"}': 1,
    'connections_refused_total{direction="inbound",limit="maxConnections"}': 1,
  })
  t.end()
})

await t.test('every name is one that the metrics take', async t => {
  const tally = new Tally()
  const metrics = new AgentMetrics({ version: '1' })
  for (const side of ['client', 'server'] as const) {
    tally.ended(side, { by: 'us', code: 'FRAME_SIZE_ERROR', limit: 'MAX_CONTROL_PAYLOAD' })
    tally.refused(side, 'maxHeaderList')
  }
  tally.closed(connectionRecord({ direction: 'inbound', reason: 'tls', error: 'no' }))
  tally.closed(connectionRecord({ ...TOO_MANY }))
  const counts = tally.take()
  metrics.threadCounters(0, counts)
  const text = await metrics.text()
  for (const name of Object.keys(counts)) t.match(text, `culvert_dataplane_${name} 1\n`)
})
