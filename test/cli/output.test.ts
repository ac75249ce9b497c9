import t from 'tap'
import { fail, table } from '../../cli/output.ts'
import { CulvertError } from '../../lib/errors.ts'

await t.test('columns are as wide as their widest cell', async t => {
  t.equal(
    table([
      ['A', 'LONGER', 'C'],
      ['long cell', 'x', 'end'],
    ]),
    'A          LONGER  C\nlong cell  x       end',
  )
  t.equal(table([]), '')
})

await t.test('an error’s kind decides the exit status', async t => {
  const said: string[] = []
  t.intercept(process.stderr, 'write', { value: (text: string) => said.push(text) > 0 })
  const status = (err: unknown) => fail(err)
  t.equal(status(new Error('x')), 1)
  t.equal(status(new CulvertError('LAB', 'x')), 1)
  t.equal(status(new CulvertError('INPUT', 'x')), 2)
  t.equal(status(new CulvertError('TOOL', 'x')), 69)
  t.equal(status(new CulvertError('DENIED', 'no', { cause: new Error('why'), hint: 'do this' })), 77)
  t.match(said.join(''), /culvert: no: why\nhint: do this\n$/)
})
