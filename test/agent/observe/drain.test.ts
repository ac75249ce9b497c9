import t from 'tap'
import { Drain } from '../../../agent/observe/drain.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

await t.test('with nobody watching it is over at once', async t => {
  const clock = new FakeClock()
  t.strictSame(await new Drain(clock).start(1000, 'SIGTERM'), { isOrderly: true, cut: [] })
  t.equal(clock.timers, 0)
})

await t.test('whoever holds a watcher holds the stop up', async t => {
  const drain = new Drain(new FakeClock())
  const inbound = drain.watch('inbound')
  const outbound = drain.watch('outbound')
  t.notOk(inbound.draining.aborted)
  const result = drain.start(1000, 'SIGTERM')
  t.equal(inbound.draining.reason, 'SIGTERM')
  inbound.done()
  inbound.done()
  outbound.done()
  t.strictSame(await result, { isOrderly: true, cut: [] })
  t.notOk(inbound.cut.aborted)
})

await t.test('at the deadline the rest is cut, and named', async t => {
  const clock = new FakeClock()
  const drain = new Drain(clock)
  drain.watch('quick').done()
  const slow = drain.watch('slow')
  const result = drain.start(1000, 'SIGTERM')
  clock.advance(999)
  t.notOk(slow.cut.aborted)
  clock.advance(1)
  t.strictSame(await result, { isOrderly: false, cut: ['slow'] })
  t.ok(slow.cut.aborted)
})

await t.test('nothing new starts during a drain', async t => {
  const drain = new Drain(new FakeClock())
  await drain.start(0, 'SIGTERM')
  t.throws(() => drain.watch('late'), { code: 'CLOSED', message: /'late' cannot start/ })
})
