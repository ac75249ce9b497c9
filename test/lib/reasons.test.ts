import t from 'tap'
import { CARRIED, PLAINTEXT, REASONS, REFUSED, UNCAPTURED } from '../../lib/reasons.ts'

await t.test('every word stands in one class only, and all of them in the list', async t => {
  t.equal(new Set(REASONS).size, REASONS.length)
  t.strictSame(new Set(REASONS), new Set([...CARRIED, ...PLAINTEXT, ...UNCAPTURED, ...REFUSED]))
})

await t.test('every word fits a metric label, a log field and a URL as it is', async t => {
  t.strictSame(
    REASONS.filter(reason => !/^[a-z]+(-[a-z]+)*$/.test(reason)),
    [],
  )
})
