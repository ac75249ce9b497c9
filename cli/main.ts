/** Starts the `culvert` command; everything else is imported once compiled modules can come from their cache. */
import { enableCompileCache } from 'node:module'
import { constants } from 'node:os'
import { COMPILE_CACHE_DIR } from '../lib/compile-cache.ts'

enableCompileCache(COMPILE_CACHE_DIR)
// Whoever read has seen enough (`culvert status | head`): an end like that of any command, by SIGPIPE. What a lab in the
// foreground has started ends with it.
process.stdout.on('error', (err: NodeJS.ErrnoException) => {
  if (err.code === 'EPIPE') process.exit(128 + constants.signals.SIGPIPE)
  throw err
})
process.stderr.on('error', () => undefined)
const { runCulvert } = await import('./program.ts')
process.exitCode = await runCulvert(process.argv.slice(2))
