/** The agent's command line. Settings come from the environment; `--help` lists them. */
import { errorText, CulvertError } from '../lib/errors.ts'
import { shutdownSignal } from '../lib/lifecycle.ts'
import { VERSION } from '../lib/version.ts'
import { configFrom, SETTINGS_HELP } from './config.ts'

const USAGE = `culvert agent ${VERSION}: carries the traffic of this node's pods in mutual TLS

usage: node agent/main.ts [--help] [--version] [--warm-up]

Runs until SIGTERM, which drains open connections. --warm-up only fills the cache of compiled modules in the
directory NODE_COMPILE_CACHE: do so when an image is built. Settings, from the environment:

${SETTINGS_HELP.map(([name, fallback, meaning]) => `  ${name.padEnd(32)} ${meaning}\n${' '.repeat(35)}default: ${fallback || 'none'}`).join('\n')}
`

const [flag, ...rest] = process.argv.slice(2)
if (flag === '--help' || flag === '-h') process.stdout.write(USAGE)
else if (flag === '--version') process.stdout.write(`${VERSION}\n`)
else if (flag === '--warm-up' && rest.length === 0) await (await import('./warm-up.ts')).warmUp()
else if (flag !== undefined || rest.length > 0) {
  process.stderr.write(`culvert agent: unknown argument '${flag ?? rest[0]}'; see --help\n`)
  process.exitCode = 2
} else {
  const shutdown = shutdownSignal()
  try {
    const config = configFrom(process.env)
    const { startAgent } = await import('./start.ts')
    process.exitCode = await startAgent(config, shutdown)
  } catch (err) {
    process.stderr.write(`culvert agent: ${errorText(err)}\n`)
    if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
    // At once: threads and ports that were begun would keep the process alive.
    process.exit(err instanceof CulvertError && err.code === 'CONFIG' ? 2 : 1)
  }
  shutdown.dispose()
}
