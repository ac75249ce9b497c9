import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isAlive } from '../../../lab/processes.ts'
import { KeptProcess, type KeptProcessOptions } from '../../../lab/supervisor/kept-process.ts'

function kept(t: Test, options: Partial<KeptProcessOptions> & { argv: string[] }) {
  const logFile = join(t.testdir({}), 'log')
  const events = new EventEmitter()
  const process = new KeptProcess({
    name: 'it',
    env: { PATH: '/usr/bin:/bin' },
    logFile,
    restartDelayMs: () => 0,
    changed: () => events.emit('changed'),
    ...options,
  })
  t.teardown(() => process.stop('SIGKILL', 0))
  const until = async (isSo: () => boolean) => {
    while (!isSo()) await once(events, 'changed')
  }
  return { process, logFile, until }
}

await t.test('a process that is killed runs again under another number', async t => {
  const { process, until, logFile } = kept(t, { argv: ['sleep', 'infinity'] })
  process.start()
  const first = process.ref!
  t.ok(isAlive(first))
  t.ok(process.signal('SIGKILL'))
  await until(() => process.restarts === 1 && process.ref !== undefined)
  t.not(process.ref!.pid, first.pid)
  t.notOk(isAlive(first))
  t.equal(process.lastExit, 'SIGKILL')
  t.match(readFileSync(logFile, 'utf8'), /lab: it ended \(SIGKILL\); starting it again\n/)
})

await t.test('restarts wait as long as they are told, counted in a row', async t => {
  const asked: number[] = []
  const { process, until } = kept(t, {
    argv: ['sh', '-c', 'exit 3'],
    restartDelayMs: restart => {
      asked.push(restart)
      return restart < 4 ? 0 : 60_000
    },
  })
  process.start()
  await until(() => asked.length === 4)
  t.strictSame(asked, [1, 2, 3, 4])
  t.equal(process.lastExit, 'exit 3')
  t.equal(process.ref, undefined)
})

await t.test('a process that is stopped stays stopped', async t => {
  const { process } = kept(t, { argv: ['sleep', 'infinity'] })
  process.start()
  const ref = process.ref!
  await process.stop('SIGTERM', 5000)
  t.notOk(isAlive(ref))
  t.equal(process.ref, undefined)
  t.equal(process.restarts, 0)
  t.notOk(process.signal('SIGKILL'))
})

await t.test('one that does not heed the signal is killed after its grace, with its children', async t => {
  const { process, until } = kept(t, {
    argv: ['sh', '-c', 'trap "" TERM; echo >&3; sleep infinity & wait'],
    isGroup: true,
    tellsReady: true,
  })
  process.start()
  t.notOk(process.isReady)
  await until(() => process.isReady)
  const ref = process.ref!
  await process.stop('SIGTERM', 50)
  t.notOk(isAlive(ref))
  t.equal(process.lastExit, 'SIGKILL')
})

await t.test('a program that is not there is tried again, not thrown', async t => {
  const { process, until } = kept(t, {
    argv: ['/nonexistent/program'],
    restartDelayMs: () => 60_000,
  })
  process.start()
  await until(() => process.lastExit !== undefined)
  t.match(process.lastExit, /ENOENT/)
  await process.stop('SIGTERM', 1000)
})
