import * as fc from 'fast-check'
import t from 'tap'
import { MultiMap } from '../../../ca-server/world/multi-map.ts'

await t.test('it is a map of sets, however the values are kept', t => {
  const step = fc.record({
    key: fc.constantFrom('a', 'b'),
    value: fc.constantFrom(1, 2, 3),
    present: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), steps => {
      const map = new MultiMap<string, number>()
      const model: Record<string, Set<number>> = { a: new Set(), b: new Set() }
      for (const { key, value, present } of steps) {
        map.put(key, value, present)
        if (present) model[key]!.add(value)
        else model[key]!.delete(value)
        for (const [key, values] of Object.entries(model)) {
          t.strictSame([...map.get(key)], [...values])
          t.equal(map.has(key), values.size > 0)
        }
      }
    }),
    { numRuns: 50 },
  )
  t.end()
})
