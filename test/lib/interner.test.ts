import t from 'tap'
import { Interner } from '../../lib/interner.ts'

await t.test('interned values are one while they are in use, and forgotten after', async t => {
  const interner = new Interner<object>(2)
  const first = interner.get('a', () => ({}))
  t.equal(
    interner.get('a', () => ({})),
    first,
  )
  for (const key of ['b', 'a', 'c', 'a', 'd', 'a', 'e']) interner.get(key, () => ({}))
  t.equal(
    interner.get('a', () => ({})),
    first,
    'kept by being asked for',
  )
  for (const key of ['f', 'g', 'h', 'i', 'j']) interner.get(key, () => ({}))
  t.not(
    interner.get('a', () => ({})),
    first,
  )
  t.ok(interner.size <= 4)
})
