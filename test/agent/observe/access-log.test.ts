import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { AccessLog } from '../../../agent/observe/access-log.ts'
import { AccessLines } from '../../../agent/worker/access-lines.ts'
import { connectionRecord } from '../../helpers/records.ts'

await t.test('what threads have rendered is written as it is, in order', async t => {
  const path = join(t.testdir(), 'log')
  const fd = openSync(path, 'w')
  t.teardown(() => closeSync(fd))
  const log = new AccessLog({ fd })
  log.write(['one\ntwo\n', 'three\n'])
  log.write([])
  log.write(['four\n'])
  await log.flush()
  t.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\nfour\n')
})

await t.test('a reader that does not read costs lines, which are counted, and no time', async t => {
  const path = join(t.testdir(), 'pipe')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => closeSync(fd))
  let dropped = 0
  const total = 5000
  const log = new AccessLog({
    fd,
    mostBufferedBytes: 64 * 1024,
    onDropped: lines => (dropped += lines),
  })
  const lines = new AccessLines({ level: 'info', fields: {} })
  const startedAt = performance.now()
  for (let id = 0; id < total; id++) {
    lines.closed(connectionRecord({ id }))
    if (id % 7 === 0) log.write(lines.take())
  }
  log.write(lines.take())
  t.ok(performance.now() - startedAt < 10_000, 'nobody waited')
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
