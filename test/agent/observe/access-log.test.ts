import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { AccessLog, type AccessLogOptions } from '../../../agent/observe/access-log.ts'
import { connectionRecord } from '../../helpers/records.ts'

function fileLog(t: Test, options: Partial<AccessLogOptions> = {}) {
  const path = join(t.testdir(), 'log')
  const fd = openSync(path, 'w')
  t.teardown(() => closeSync(fd))
  const log = new AccessLog({ fields: { node: 'node-a' }, level: 'info', fd, ...options })
  const lines = async () => {
    await log.flush()
    return readFileSync(path, 'utf8').trimEnd().split('\n')
  }
  return { log, lines }
}

await t.test('a line has the names and the order of the field, and our reason behind them', async t => {
  const { log, lines } = fileLog(t)
  log.closed(connectionRecord())
  const [line] = await lines()
  const fields = JSON.parse(line!) as Record<string, unknown>
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
  t.match(fields, {
    level: 'info',
    msg: 'connection complete',
    'src.addr': '10.0.0.1:40000',
    'dst.addr': '10.0.1.2:15008',
    'dst.hbone_addr': '10.0.1.2:8080',
    bytes_sent: 100,
    bytes_recv: 2000,
    duration: '12ms',
    reason: 'mtls',
  })
})

await t.test('an inbound connection is seen from the pod that was called', async t => {
  const { log, lines } = fileLog(t)
  log.closed(connectionRecord({ direction: 'inbound' }))
  t.match(JSON.parse((await lines())[0]!), { direction: 'inbound', bytes_sent: 2000, bytes_recv: 100 })
})

await t.test('a failure is an error with its text and its name; identities show for mTLS alone', async t => {
  const { log, lines } = fileLog(t)
  const { hboneAddress: _, ...plain } = connectionRecord({
    reason: 'unreachable',
    error: `connect ECONNREFUSED${'!'.repeat(5000)}`,
    errorCode: 'ECONNREFUSED',
  })
  log.closed(plain)
  const fields = JSON.parse((await lines())[0]!) as Record<string, unknown>
  t.match(fields, {
    level: 'error',
    error: /^connect ECONNREFUSED/,
    error_code: 'ECONNREFUSED',
    'dst.addr': '10.0.1.2:8080',
  })
  t.equal((fields['error'] as string).length, 1024)
  t.notOk('src.identity' in fields || 'dst.identity' in fields || 'dst.hbone_addr' in fields)
})

await t.test(
  'who came through a tunnel is named by the identity that was proved, also when it was refused',
  async t => {
    const { log, lines } = fileLog(t)
    const refused = connectionRecord({ reason: 'policy', direction: 'inbound', error: 'no rule allows it' })
    log.closed(refused)
    log.closed({ ...refused, hboneAddress: undefined })
    const [tunnelled, plain] = (await lines()).map(line => JSON.parse(line) as Record<string, unknown>)
    t.equal(tunnelled!['src.identity'], 'spiffe://cluster.local/ns/shop/sa/client')
    t.notOk('dst.identity' in tunnelled!)
    t.notOk('src.identity' in plain!)
  },
)

await t.test('openings are logged at debug alone, and the level can be changed', async t => {
  const { log, lines } = fileLog(t)
  log.opened(connectionRecord())
  log.level = 'debug'
  log.opened(connectionRecord())
  log.level = 'error'
  log.closed(connectionRecord())
  const all = await lines()
  t.equal(all.length, 1)
  t.match(JSON.parse(all[0]!), { level: 'debug', msg: 'connection opened' })
})

await t.test('a reader that does not read costs lines, which are counted, and no time', async t => {
  const path = join(t.testdir(), 'pipe')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => closeSync(fd))
  let dropped = 0
  const total = 5000
  const log = new AccessLog({
    fields: {},
    level: 'info',
    fd,
    mostBufferedBytes: 64 * 1024,
    onDropped: lines => (dropped += lines),
  })
  const startedAt = performance.now()
  for (let id = 0; id < total; id++) log.closed(connectionRecord({ id }))
  t.ok(performance.now() - startedAt < 2000, 'nobody waited')
  t.ok(dropped > 0, `${dropped} lines were dropped`)
  await log.flush(10)

  const reader = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => reader.close())
  let text = ''
  const written = () => text.split('\n').length - 1
  while (written() + dropped < total) {
    const { bytesRead, buffer } = await reader.read().catch(() => ({ bytesRead: 0, buffer: Buffer.alloc(0) }))
    text += buffer.toString('latin1', 0, bytesRead)
    if (bytesRead === 0) await log.flush(20)
  }
  t.equal(written() + dropped, total, 'every line was written or counted')
  t.doesNotThrow(
    () =>
      text
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line) as unknown),
    'and every line is whole',
  )
})
