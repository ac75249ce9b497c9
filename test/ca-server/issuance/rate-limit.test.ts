import * as fc from 'fast-check'
import t from 'tap'
import { RateLimit } from '../../../ca-server/issuance/rate-limit.ts'

await t.test('a burst is given at once, then the rate', t => {
  let nowMs = 0
  const limit = new RateLimit({ perSecond: 10, burst: 3, nowMs: () => nowMs })
  t.strictSame(
    [1, 2, 3, 4].map(() => limit.take('a')),
    [true, true, true, false],
  )
  t.ok(limit.take('b'), 'others are not touched')
  nowMs = 100
  t.strictSame([limit.take('a'), limit.take('a')], [true, false])
  nowMs = 1_000_000
  t.strictSame(
    [1, 2, 3, 4].map(() => limit.take('a')),
    [true, true, true, false],
    'never more than the burst',
  )
  t.end()
})

await t.test('a rate of zero is no limit', t => {
  const limit = new RateLimit({ perSecond: 0, burst: 1 })
  t.ok(Array.from({ length: 1000 }, () => limit.take('a')).every(Boolean))
  t.end()
})

await t.test('over any time no key gets more than burst and rate allow', t => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(2000), { maxLength: 200 }),
      fc.integer({ min: 1, max: 50 }),
      (gaps, perSecond) => {
        let nowMs = 0
        const limit = new RateLimit({ perSecond, burst: 5, nowMs: () => nowMs })
        let taken = 0
        for (const gap of gaps) {
          nowMs += gap
          if (limit.take('a')) taken++
        }
        return taken <= 5 + (nowMs / 1000) * perSecond + 1e-6
      },
    ),
  )
  t.end()
})
