import * as fc from 'fast-check'
import t from 'tap'
import { LOG_LEVELS, type LogLevel } from '../../../lib/log-level.ts'
import { AccessLines, LONGEST_WRITE } from '../../../agent/worker/access-lines.ts'
import type { ConnectionRecord } from '../../../agent/worker/messages.ts'
import { connectionRecord } from '../../helpers/records.ts'
import { codePoint } from '../../helpers/code-point.ts'

const accessLines = (level: LogLevel = 'info') => new AccessLines({ level, fields: { node: 'node-a' } })

function parse(lines: AccessLines): Record<string, unknown>[] {
  const text = lines.take().join('')
  if (text !== '' && !text.endsWith('\n')) throw new Error('a line without an end')
  return text
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line) as Record<string, unknown>)
}

function closed(record: ConnectionRecord): Record<string, unknown> {
  const lines = accessLines()
  lines.closed(record)
  return parse(lines)[0]!
}

await t.test('a line has the names and the order of the field, and our reason behind them', t => {
  const before = Date.now()
  const fields = closed(connectionRecord())
  t.strictSame(Object.keys(fields), [
    'level',
    'time',
    'node',
    'scope',
    'src.addr',
    'src.workload',
    'src.namespace',
    'src.identity',
    'dst.addr',
    'dst.hbone_addr',
    'dst.service',
    'dst.workload',
    'dst.namespace',
    'dst.identity',
    'direction',
    'bytes_sent',
    'bytes_recv',
    'duration',
    'reason',
    'msg',
  ])
  const { time, ...others } = fields
  t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  t.ok(Date.parse(time as string) >= before && Date.parse(time as string) <= Date.now())
  t.strictSame(others, {
    level: 'info',
    node: 'node-a',
    scope: 'access',
    'src.addr': '10.0.0.1:40000',
    'src.workload': 'client',
    'src.namespace': 'shop',
    'src.identity': 'spiffe://cluster.local/ns/shop/sa/client',
    'dst.addr': '10.0.1.2:15008',
    'dst.hbone_addr': '10.0.1.2:8080',
    'dst.service': 'echo.shop.svc.cluster.local',
    'dst.workload': 'server',
    'dst.namespace': 'shop',
    'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server',
    direction: 'outbound',
    bytes_sent: 100,
    bytes_recv: 2000,
    duration: '12ms',
    reason: 'mtls',
    msg: 'connection complete',
  })
  t.end()
})

await t.test('an inbound connection is seen from the pod that was called', t => {
  const fields = closed(connectionRecord({ direction: 'inbound' }))
  t.match(fields, { direction: 'inbound', bytes_sent: 2000, bytes_recv: 100 })
  t.end()
})

await t.test('a failure is an error with its text and its name; identities show for mTLS alone', t => {
  const fields = closed(
    connectionRecord({
      reason: 'unreachable',
      error: `connect ECONNREFUSED${'!'.repeat(5000)}`,
      errorCode: 'ECONNREFUSED',
      hboneAddress: undefined,
    }),
  )
  t.match(fields, {
    level: 'error',
    error: /^connect ECONNREFUSED/,
    error_code: 'ECONNREFUSED',
    'dst.addr': '10.0.1.2:8080',
  })
  t.equal((fields['error'] as string).length, 1024)
  t.notOk('src.identity' in fields || 'dst.identity' in fields || 'dst.hbone_addr' in fields)
  t.strictSame(Object.keys(fields).slice(-6), [
    'bytes_recv',
    'duration',
    'error',
    'error_code',
    'reason',
    'msg',
  ])
  t.end()
})

await t.test('who came through a tunnel is named by the identity proved, also when it was refused', t => {
  const refused = connectionRecord({ reason: 'policy', direction: 'inbound', error: 'no rule allows it' })
  const tunnelled = closed(refused)
  t.equal(tunnelled['src.identity'], 'spiffe://cluster.local/ns/shop/sa/client')
  t.notOk('dst.identity' in tunnelled)
  t.notOk('src.identity' in closed({ ...refused, hboneAddress: undefined }))
  t.end()
})

await t.test('each level writes what it should, and can be changed', t => {
  const lines = accessLines('silent')
  const written = Object.fromEntries(
    LOG_LEVELS.map(level => {
      lines.level = level
      const isOpening = lines.opened(connectionRecord())
      const isEnd = lines.closed(connectionRecord())
      const isRefusal = lines.closed(connectionRecord({ reason: 'strict' }))
      t.equal(parse(lines).length, [isOpening, isEnd, isRefusal].filter(Boolean).length)
      return [level, [isOpening, isEnd, isRefusal]]
    }),
  )
  t.strictSame(written, {
    trace: [true, true, true],
    debug: [true, true, true],
    info: [false, true, true],
    warn: [false, false, true],
    error: [false, false, true],
    fatal: [false, false, false],
    silent: [false, false, false],
  })
  t.end()
})

await t.test('an opening says who and where, and nothing of an end', t => {
  const lines = accessLines('debug')
  lines.opened(connectionRecord())
  const [fields] = parse(lines)
  t.match(fields, { level: 'debug', msg: 'connection opened', 'src.workload': 'client' })
  for (const name of ['bytes_sent', 'bytes_recv', 'duration', 'reason']) t.notOk(name in fields!, name)
  t.end()
})

await t.test('whatever an error or a name contains, a line is one line of JSON', () => {
  const anything = fc.string({ unit: codePoint(), maxLength: 300 })
  fc.assert(
    fc.property(anything, anything, (error, workload) => {
      const lines = accessLines()
      lines.closed(connectionRecord({ error, source: { ip: '10.0.0.1', port: 1, workload } }))
      const [first, ...more] = parse(lines)
      if (more.length > 0) throw new Error('several lines')
      const isSame = (got: unknown, given: string) => got === given || !given.isWellFormed()
      if (!isSame(first!['error'], error) || !isSame(first!['src.workload'], workload))
        throw new Error('not what was given')
    }),
  )
  return Promise.resolve()
})

await t.test('lines are put together into writes of whole lines that a pipe keeps whole', t => {
  const lines = accessLines()
  for (let id = 0; id < 1000 && !lines.isFull; id++)
    lines.closed(connectionRecord({ id, error: 'é'.repeat(id % 50) }))
  t.ok(lines.isFull, 'so much is worth a message')
  const writes = lines.take()
  t.ok(writes.length < 30, `${writes.length} writes`)
  for (const write of writes)
    if (Buffer.byteLength(write) > LONGEST_WRITE || !write.endsWith('\n')) t.fail(write)
  t.notOk(lines.isFull)
  t.strictSame(lines.take(), [], 'each is given once')
  t.end()
})

await t.test('a line that is too long for such a write has one of its own', t => {
  const lines = accessLines()
  const long = connectionRecord({ error: '語'.repeat(1024), errorCode: 'x'.repeat(2000) })
  for (const record of [connectionRecord(), long, connectionRecord()]) lines.closed(record)
  const writes = lines.take()
  t.strictSame(
    writes.map(write => write.split('\n').length - 1),
    [1, 1, 1],
  )
  t.end()
})
