import * as fc from 'fast-check'
import t from 'tap'
import {
  geometricMean,
  median,
  quantile,
  ratiosByRound,
  relativeQuartileRange,
  relativeRange,
  spreadOf,
} from '../../bench/stats.ts'

const finite = fc.double({ noNaN: true, noDefaultInfinity: true })
const values = fc.array(finite, { minLength: 1, maxLength: 40 })
const rounds = fc.dictionary(
  fc.integer({ min: 1, max: 9 }).map(String),
  fc.double({ min: 1e-6, max: 1e6, noNaN: true }),
)

function asMap(record: Record<string, number>): Map<number, number> {
  return new Map(Object.entries(record).map(([round, value]) => [Number(round), value]))
}

await t.test('quantiles are what R (type 7) and NumPy give', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  t.equal(quantile([1, 2, 3, 4, 5], 0.25), 2)
  t.equal(quantile([15, 20, 35, 40, 50], 0.4), 29)
  t.equal(quantile([7], 0.99), 7)
})

await t.test('no values, no number and no such quantile are errors', async t => {
  t.throws(() => median([]), { code: 'INPUT' })
  t.throws(() => spreadOf([]), { code: 'INPUT' })
  t.throws(() => median([1, Number.NaN]), { code: 'INPUT' })
  t.throws(() => quantile([1], 1.1), { code: 'INPUT' })
  t.throws(() => quantile([1], Number.NaN), { code: 'INPUT' })
})

await t.test(
  'quantiles lie between lowest and highest, grow with q, and do not depend on the order',
  async () => {
    fc.assert(
      fc.property(
        values,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (list, a, b) => {
          const [low, high] = [Math.min(a, b), Math.max(a, b)]
          const [atLow, atHigh] = [quantile(list, low), quantile(list, high)]
          const order = list.toSorted((x, y) => x - y)
          return (
            atLow <= atHigh &&
            atLow >= order[0]! &&
            atHigh <= order.at(-1)! &&
            Object.is(quantile(list.toReversed(), a) + 0, quantile(list, a) + 0)
          )
        },
      ),
    )
  },
)

await t.test('half of the values are at or below the median, half at or above', async () => {
  fc.assert(
    fc.property(values, list => {
      const middle = median(list)
      return (
        list.filter(value => value <= middle).length * 2 >= list.length &&
        list.filter(value => value >= middle).length * 2 >= list.length
      )
    }),
  )
})

await t.test('a spread is in order and leaves nothing out', async () => {
  fc.assert(
    fc.property(values, list => {
      const { count, min, lowerQuartile, median, upperQuartile, max } = spreadOf(list)
      return (
        count === list.length &&
        min <= lowerQuartile &&
        lowerQuartile <= median &&
        median <= upperQuartile &&
        upperQuartile <= max &&
        list.every(value => value >= min && value <= max)
      )
    }),
  )
})

await t.test('ranges are parts of the median', async t => {
  const spread = spreadOf([80, 90, 100, 110, 140])
  t.equal(relativeRange(spread), 0.6)
  t.equal(relativeQuartileRange(spread), 0.2)
  t.equal(relativeRange(spreadOf([5])), 0)
  t.equal(relativeRange(spreadOf([-1, 0, 1])), undefined)
})

await t.test('ratios are taken within a round: what one round does to both goes out', async t => {
  const [a, b] = [
    new Map([
      [1, 10],
      [2, 30],
      [3, 5],
    ]),
    new Map([
      [1, 5],
      [2, 15],
      [4, 7],
    ]),
  ]
  t.strictSame(
    [...ratiosByRound(a, b)],
    [
      [1, 2],
      [2, 2],
    ],
  )
  t.strictSame([...ratiosByRound(new Map([[1, 1]]), new Map([[1, 0]]))], [], 'nothing through zero')
  fc.assert(
    fc.property(
      rounds,
      rounds,
      fc.dictionary(
        fc.integer({ min: 1, max: 9 }).map(String),
        fc.double({ min: 0.01, max: 100, noNaN: true }),
      ),
      (x, y, weather) => {
        const under = (record: Record<string, number>) =>
          asMap(
            Object.fromEntries(
              Object.entries(record).map(([round, value]) => [round, value * (weather[round] ?? 1)]),
            ),
          )
        const plain = ratiosByRound(asMap(x), asMap(y))
        const weathered = ratiosByRound(under(x), under(y))
        return (
          plain.size === weathered.size &&
          [...plain].every(([round, ratio]) => Math.abs(weathered.get(round)! / ratio - 1) < 1e-9)
        )
      },
    ),
  )
})

await t.test('a geometric mean of a factor and its inverse is 1', async t => {
  t.ok(Math.abs(geometricMean([2, 0.5]) - 1) < 1e-12)
  t.ok(Math.abs(geometricMean([4, 9]) - 6) < 1e-12)
  t.throws(() => geometricMean([]), { code: 'INPUT' })
  t.throws(() => geometricMean([1, 0]), { code: 'INPUT' })
})
