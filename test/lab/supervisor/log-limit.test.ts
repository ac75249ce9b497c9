import t from 'tap'
import { tooLong } from '../../../lab/supervisor/log-limit.ts'

await t.test('only files past the limit are too long', async t => {
  const dir = t.testdir({ a: 'x'.repeat(11), b: 'x'.repeat(10), c: '' })
  t.strictSame(tooLong(dir, 10), ['a'])
})
