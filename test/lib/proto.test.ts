import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const PROTO = join(import.meta.dirname, '../../lib/proto')

async function filesUnder(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  const texts = await Promise.all(
    paths.map(async path => [path.slice(folder.length + 1), await readFile(path, 'utf8')]),
  )
  return Object.fromEntries(texts) as Record<string, string>
}

await t.test('the committed code is what generate.sh makes of the .proto files', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'culvert-proto-'))
  t.teardown(() => rm(folder, { recursive: true }))
  await promisify(execFile)('sh', [join(PROTO, 'generate.sh'), folder])
  const generated = await filesUnder(join(folder, 'gen'))
  t.ok(Object.keys(generated).length > 0)
  t.strictSame(Object.keys(await filesUnder(join(PROTO, 'gen'))).sort(), Object.keys(generated).sort())
  for (const [path, text] of Object.entries(await filesUnder(join(PROTO, 'gen'))))
    t.ok(text === generated[path], `${path} is current (if not: npm run generate)`)
})
