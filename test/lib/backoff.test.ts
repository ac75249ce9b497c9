import * as fc from 'fast-check'
import t from 'tap'
import { Backoff } from '../../lib/backoff.ts'

await t.test('waits grow up to the longest, and begin anew after a success', async t => {
  const backoff = new Backoff({ firstMs: 100, maxMs: 1000, jitter: 0 })
  t.strictSame(
    Array.from({ length: 6 }, () => backoff.next()),
    [100, 200, 400, 800, 1000, 1000],
  )
  backoff.reset()
  t.equal(backoff.next(), 100)
})

await t.test('jitter spreads a wait to both sides', async t => {
  const first = (random: number) => new Backoff({ firstMs: 1000, jitter: 0.2, random: () => random }).next()
  t.strictSame([first(0), first(0.5), first(1)], [800, 1000, 1200])
})

await t.test('no wait is longer than the longest, and no two in a row are the same at the top', async t => {
  let at = 0
  const backoff = new Backoff({ firstMs: 100, maxMs: 1000, random: () => (at = (at + 0.37) % 1) })
  const waits = Array.from({ length: 40 }, () => backoff.next())
  t.ok(Math.max(...waits) <= 1000, `${Math.max(...waits)}`)
  t.equal(waits.slice(10).filter((wait, at, all) => wait === all[at - 1]).length, 0)
})

await t.test('any options give waits within bounds', async () => {
  const options = fc.record({
    firstMs: fc.integer({ min: 0, max: 5000 }),
    maxMs: fc.integer({ min: 0, max: 5000 }),
    factor: fc.double({ min: 1, max: 10, noNaN: true }),
    jitter: fc.double({ min: 0, max: 1, noNaN: true }),
  })
  fc.assert(
    fc.property(options, options => {
      const backoff = new Backoff(options)
      return Array.from({ length: 30 }, () => backoff.next()).every(
        wait => wait >= 0 && wait <= options.maxMs,
      )
    }),
  )
})

await t.test('waiting takes its time, and ends early and quietly when told to stop', async t => {
  const started = performance.now()
  await new Backoff({ firstMs: 20, jitter: 0 }).wait(new AbortController().signal)
  t.ok(performance.now() - started >= 19)

  const stop = new AbortController()
  const long = new Backoff({ firstMs: 60_000, maxMs: 60_000 }).wait(stop.signal)
  stop.abort()
  await long
  await new Backoff({ firstMs: 60_000, maxMs: 60_000 }).wait(stop.signal)
  t.ok(performance.now() - started < 10_000)
})
