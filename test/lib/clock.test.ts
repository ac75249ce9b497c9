import t from 'tap'
import { systemClock } from '../../lib/clock.ts'

await t.test('a timer fires once after its time, and not when it was cancelled', async t => {
  const order: string[] = []
  systemClock.after(0, () => order.push('cancelled')).cancel()
  const startedMs = systemClock.now()
  await new Promise<void>(resolve => systemClock.after(20, resolve))
  t.ok(systemClock.now() - startedMs >= 19)
  t.strictSame(order, [])
})

await t.test('a delay beyond 24 days does not fire at once', async t => {
  let fired = false
  const timer = systemClock.after(45 * 86_400_000, () => (fired = true))
  await new Promise<void>(resolve => systemClock.after(20, resolve))
  t.notOk(fired)
  timer.cancel()
})
