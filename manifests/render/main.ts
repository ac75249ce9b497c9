/**
 * Writes the plain YAML that `kubectl apply -f` takes, from the kustomizations: `npm run manifests`. With --check it
 * writes nothing and fails when a file is not what it would write.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { errorText } from '../../lib/errors.ts'
import { RENDERED, renderFile } from './files.ts'

const directory = fileURLToPath(new URL('..', import.meta.url))

try {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } })
  for (const { file, from } of RENDERED) {
    const text = renderFile(directory, from)
    const path = `${directory}${file}`
    if (!values.check) writeFileSync(path, text)
    else if (readFileSync(path, 'utf8') !== text) {
      process.stderr.write(`manifests/${file} is not what manifests/${from} makes: npm run manifests\n`)
      process.exitCode = 1
    }
  }
} catch (err) {
  process.stderr.write(`manifests: ${errorText(err)}\n`)
  process.exitCode = 1
}
