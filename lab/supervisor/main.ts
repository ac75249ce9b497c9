/**
 * The supervisor as a process: started by `startLab`, which hears on descriptor 3 how it goes, one JSON value a
 * line. With `--tied` the lab ends when standard input does, so that nothing outlives who asked for it.
 */
import { closeSync, writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { parseArgs } from 'node:util'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { labPaths } from '../names.ts'
import { serveControl } from './control.ts'
import { statusOf } from './status.ts'
import { Supervisor } from './supervisor.ts'

const REPORT_FD = 3

const { values } = parseArgs({
  options: {
    name: { type: 'string', default: 'default' },
    dir: { type: 'string', default: '' },
    file: { type: 'string', default: '' },
    'cert-ttl': { type: 'string' },
    'log-level': { type: 'string', default: 'info' },
    'trust-domain': { type: 'string', default: 'cluster.local' },
    grace: { type: 'string', default: '10' },
    kubelet: { type: 'string' },
    'agent-env': { type: 'string', multiple: true, default: [] },
    rootless: { type: 'boolean', default: false },
    tied: { type: 'boolean', default: false },
  },
})

function settingOf(text: string): [name: string, value: string] {
  const at = text.indexOf('=')
  return [text.slice(0, at), text.slice(at + 1)]
}

function report(value: unknown): void {
  try {
    writeSync(REPORT_FD, `${JSON.stringify(value)}\n`)
  } catch {
    // Whoever started the lab is gone; if it is tied to them, standard input says so.
  }
}

// Whoever started the lab may stop reading.
process.stderr.on('error', () => undefined)

const ending = new AbortController()
const interrupt = () => ending.abort(new CulvertError('LAB', 'interrupted'))
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, interrupt)
// A detached lab outlives the terminal that it was started from.
process.on('SIGHUP', values.tied ? interrupt : () => undefined)
if (values.tied) {
  process.stdin.on('end', interrupt).on('error', interrupt).resume()
}

try {
  const supervisor = await Supervisor.up({
    settings: {
      name: values.name,
      trustDomain: values['trust-domain'],
      certTtl: values['cert-ttl'],
      logLevel: values['log-level'],
      graceSeconds: Number(values.grace),
      kubelet: values.kubelet,
      agentEnv: Object.fromEntries(values['agent-env'].map(settingOf)),
    },
    paths: labPaths(values.name, values.dir),
    file: values.file,
    isRootless: values.rootless,
    progress: step => report({ step }),
    signal: ending.signal,
  })
  const fail = (err: unknown) => {
    supervisor.warn(
      `the lab ends because of a fault of its own: ${err instanceof Error ? err.stack : errorText(err)}`,
    )
    process.exitCode = 1
    interrupt()
  }
  process.on('uncaughtException', fail)
  process.on('unhandledRejection', fail)
  const control = await serveControl(supervisor, interrupt)
  report({ ready: await statusOf(supervisor) })
  closeSync(REPORT_FD)
  flushCompileCache()
  if (!ending.signal.aborted)
    await new Promise(resolve => ending.signal.addEventListener('abort', resolve, { once: true }))
  control.close()
  await supervisor.down()
  process.exit()
} catch (err) {
  const { code, hint } = err instanceof CulvertError ? err : { code: 'LAB', hint: undefined }
  report({ error: { code, message: errorText(err), hint } })
  process.exit(1)
}
