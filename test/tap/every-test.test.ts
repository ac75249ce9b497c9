import { globSync } from 'node:fs'
import t from 'tap'
import { run } from '../../lab/run.ts'
import { testsTogether } from '../helpers/together.ts'

await t.test('every test is run once: by tap, or with others of its directory', async t => {
  const { code, stdout, stderr } = await run(['node_modules/.bin/tap', 'list'])
  t.equal(code, 0, stderr)
  const alone = stdout.toString().trim().split('\n')
  const others = [...testsTogether().values()].flat()
  t.ok(others.length > 0)
  t.strictSame([...alone, ...others].sort(), globSync('test/**/*.test.ts').sort())
})
