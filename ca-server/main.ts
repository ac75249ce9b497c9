/** The ca-server's command line. Settings come from the environment; `--help` lists them. */
import { CulvertError, errorText } from '../lib/errors.ts'
import { shutdownSignal } from '../lib/lifecycle.ts'
import { createLogger } from '../lib/log.ts'
import { VERSION } from '../lib/version.ts'
import { configFrom, SETTINGS_HELP } from './config.ts'

const USAGE = `culvert ca-server ${VERSION}: issues certificates to the pods of a mesh and tells its agents who is where

usage: node ca-server/main.ts [--help] [--version] [--warm-up]

Runs until SIGTERM. --warm-up only fills the cache of compiled modules in the directory NODE_COMPILE_CACHE: do so when an
image is built. Settings, from the environment:

${SETTINGS_HELP.map(([name, fallback, meaning]) => `  ${name.padEnd(24)} ${meaning}\n${' '.repeat(27)}default: ${fallback || 'none'}`).join('\n')}
`

const [flag, ...rest] = process.argv.slice(2)
if (flag === '--help' || flag === '-h') process.stdout.write(USAGE)
else if (flag === '--version') process.stdout.write(`${VERSION}\n`)
// What was loaded is written to the cache at the end of the process.
else if (flag === '--warm-up' && rest.length === 0) await import('./server.ts')
else if (flag !== undefined || rest.length > 0) {
  process.stderr.write(`culvert ca-server: unknown argument '${flag ?? rest[0]}'; see --help\n`)
  process.exitCode = 2
} else await run()

async function run(): Promise<void> {
  const shutdown = shutdownSignal()
  let isStarting = true
  try {
    const config = configFrom(process.env)
    const log = createLogger({ program: 'ca-server' }, config.logLevel)
    process.on('uncaughtException', (err, origin) => {
      log.fatal({ err, origin }, 'this is a bug')
      process.exit(70)
    })
    const { startServer } = await import('./server.ts')
    const server = await startServer(config, log, shutdown.signal)
    isStarting = false
    await new Promise<void>(resolve => {
      if (shutdown.signal.aborted) resolve()
      else shutdown.signal.addEventListener('abort', () => resolve())
    })
    log.info({ reason: shutdown.reason }, 'stopping')
    await server.stop()
  } catch (err) {
    // Told to stop before it had started: what it was waiting for is no matter any more.
    if (!isStarting || !shutdown.signal.aborted) fail(err)
  }
  shutdown.dispose()
}

function fail(err: unknown): void {
  process.stderr.write(`culvert ca-server: ${errorText(err)}\n`)
  if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
  process.exitCode = err instanceof CulvertError && err.code === 'CONFIG' ? 2 : 1
}
