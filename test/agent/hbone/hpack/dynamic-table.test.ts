import * as fc from 'fast-check'
import t from 'tap'
import { DynamicTable, ENTRY_OVERHEAD } from '../../../../agent/hbone/hpack/dynamic-table.ts'

await t.test('entries are found newest first, and the oldest make room', async t => {
  const gone: string[] = []
  const table = new DynamicTable(3 * (ENTRY_OVERHEAD + 2), (name, value) => gone.push(name + value))
  for (const letter of ['a', 'b', 'c', 'd']) table.add(letter, '1')
  t.strictSame([table.name(0), table.name(1), table.name(2)], ['d', 'c', 'b'])
  t.strictSame(gone, ['a1'])
  table.setCapacity(40)
  t.strictSame(gone, ['a1', 'b1', 'c1'])
  t.equal(table.count, 1)
  table.add('too-large', 'x'.repeat(40))
  t.strictSame({ count: table.count, size: table.size, gone: gone.at(-1) }, { count: 0, size: 0, gone: 'd1' })
})

await t.test('behaves like a plain list, whatever is added and however it is resized', async () => {
  const entry = fc.record({ add: fc.nat({ max: 120 }), name: fc.constantFrom('a', 'bb', 'ccc') })
  const resize = fc.record({ capacity: fc.nat({ max: 3000 }) })
  fc.assert(
    fc.property(fc.array(fc.oneof({ weight: 9, arbitrary: entry }, resize), { maxLength: 200 }), steps => {
      const table = new DynamicTable(2000)
      let capacity = 2000
      let model: [string, string][] = []
      const size = () => model.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0)
      for (const [at, step] of steps.entries()) {
        if ('add' in step) {
          const value = `${at}`.padEnd(step.add, '.')
          model.unshift([step.name, value])
          table.add(step.name, value)
        } else {
          capacity = step.capacity
          table.setCapacity(capacity)
        }
        while (size() > capacity) model = model.slice(0, -1)
        const held = Array.from({ length: table.count }, (_, at) => [table.name(at), table.value(at)])
        if (JSON.stringify(held) !== JSON.stringify(model) || table.size !== size()) return false
      }
      return true
    }),
  )
})
