/** Starts the `culvert` command; everything else is imported once compiled modules can come from their cache. */
import { enableCompileCache } from 'node:module'
import { COMPILE_CACHE_DIR } from '../lib/compile-cache.ts'

enableCompileCache(COMPILE_CACHE_DIR)
const { runCulvert } = await import('./program.ts')
process.exitCode = await runCulvert(process.argv.slice(2))
