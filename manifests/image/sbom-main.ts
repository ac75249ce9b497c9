/** Prints what the image is made of: `npm run -s sbom > culvert.cdx.json`. */
import { fileURLToPath } from 'node:url'
import { errorText } from '../../lib/errors.ts'
import { sbomOf } from './sbom.ts'

try {
  process.stdout.write(
    `${JSON.stringify(sbomOf(fileURLToPath(new URL('../..', import.meta.url))), undefined, 2)}\n`,
  )
} catch (err) {
  process.stderr.write(`sbom: ${errorText(err)}\n`)
  process.exitCode = 1
}
