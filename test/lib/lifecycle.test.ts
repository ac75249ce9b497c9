import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { shutdownSignal } from '../../lib/lifecycle.ts'

await t.test('the first signal begins an orderly stop, a later one ends the process', async t => {
  const child = fork(join(import.meta.dirname, '../helpers/stop-on-signal.ts'))
  await once(child, 'message')
  child.kill('SIGINT')
  t.strictSame(await once(child, 'message'), [{ reason: 'SIGINT' }, undefined])
  child.kill('SIGTERM') // the same wish, from the supervisor
  const exited = once(child, 'exit')
  // Until half a second has gone, further signals mean the same wish: ask until it is a second one.
  while (child.exitCode === null && child.signalCode === null) {
    await Promise.race([sleep(100), exited])
    child.kill('SIGTERM')
  }
  t.strictSame(await exited, [null, 'SIGTERM'])
})

await t.test('a wish from inside is one as well, and the first one counts', async t => {
  const shutdown = shutdownSignal()
  t.teardown(() => shutdown.dispose())
  t.equal(shutdown.reason, undefined)
  shutdown.request('POST /quitquitquit')
  shutdown.request('another')
  t.ok(shutdown.signal.aborted)
  t.equal(shutdown.signal.reason, 'POST /quitquitquit')
  t.equal(shutdown.reason, 'POST /quitquitquit')
})
