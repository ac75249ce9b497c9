import * as fc from 'fast-check'
import t from 'tap'
import { collectGarbage } from '../../lib/garbage.ts'
import { IntMap } from '../../lib/int-map.ts'

type Step = readonly ['set' | 'delete' | 'clear', number]

const sorted = (values: readonly number[]) => values.toSorted((a, b) => a - b)

await t.test('it holds what a Map holds, whatever comes and goes', async () => {
  const key = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 2 ** 31 - 1 }))
  const step: fc.Arbitrary<Step> = fc.tuple(
    fc.constantFrom('set', 'set', 'set', 'delete', 'delete', 'clear'),
    key,
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), steps => {
      const ours = new IntMap<number>()
      const theirs = new Map<number, number>()
      return steps.every(([what, key], at) => {
        if (what === 'clear' && at % 50 === 0) {
          ours.clear()
          theirs.clear()
        } else if (what === 'set') {
          ours.set(key, at)
          theirs.set(key, at)
        } else if (ours.delete(key) !== theirs.delete(key)) return false
        const same = sorted(ours.values()).join() === sorted([...theirs.values()]).join()
        return (
          same &&
          ours.size === theirs.size &&
          ours.get(key) === theirs.get(key) &&
          ours.has(key) === theirs.has(key)
        )
      })
    }),
  )
})

await t.test('numbers that rise for ever, a few at a time, and thousands at once', async t => {
  const map = new IntMap<number>()
  for (let id = 1; id < 100_000; id += 2) {
    map.set(id, id)
    if (id > 64) map.delete(id - 64)
  }
  t.equal(map.size, 32)
  for (let id = 0; id < 20_000; id++) map.set(id * 7, id)
  t.ok(Array.from({ length: 20_000 }, (_, id) => map.get(id * 7) === id).every(Boolean))
  for (let id = 0; id < 20_000; id++) map.delete(id * 7)
  t.ok(map.size <= 32, `${map.size}`)
})

await t.test('it does not hold what was taken out of it', async t => {
  const map = new IntMap<object>()
  const gone = passThrough(map)
  await new Promise(resolve => setImmediate(resolve)) // a WeakRef holds what it was made for to the end of the turn
  await collectGarbage()
  t.equal(gone.filter(ref => ref.deref() !== undefined).length, 0)
})

/** A function of its own, which leaves nothing in a register of its caller's. */
function passThrough(map: IntMap<object>): WeakRef<object>[] {
  return Array.from({ length: 1000 }, (_, id) => {
    const value = { id }
    map.set(id, value)
    map.delete(id)
    return new WeakRef(value)
  })
}
