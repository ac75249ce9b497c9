import * as fc from 'fast-check'
import t from 'tap'
import { printable } from '../../lib/printable.ts'
import { codePoint } from '../helpers/code-point.ts'

await t.test('text that prints and is short stays as it is', t => {
  for (const text of ['', 'a b', 'größer', '日本 🎉']) t.equal(printable(text), text)
  t.end()
})

await t.test('what would not print is replaced, what is too long is cut', t => {
  t.equal(printable('a\u001b[2J\nb\u202ec\u0000'), 'a?[2J?b?c?')
  t.equal(printable('abcdef', 3), 'abc…')
  t.equal(printable('ab🎉', 3), 'ab?…', 'no half of a character is left')
  t.end()
})

await t.test('whatever the text, the result prints and is bounded', t => {
  fc.assert(
    fc.property(fc.string({ unit: codePoint(), maxLength: 500 }), fc.nat(300), (text, longest) => {
      const shown = printable(text, longest)
      return shown.length <= longest + 1 && !/\p{C}/u.test(shown)
    }),
  )
  t.end()
})
