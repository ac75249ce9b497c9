/** Running another program in the foreground, as if it had been started in this one's place. */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { CulvertError } from '../lib/errors.ts'
import { toolEnv } from '../lib/tool-path.ts'
import { exitStatus } from '../lab/run.ts'

const FORWARDED = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'] as const
/** What a terminal sends to everyone in the foreground: the child has it already. */
const FROM_TERMINAL: ReadonlySet<string> = new Set(['SIGINT', 'SIGQUIT', 'SIGWINCH', 'SIGHUP'])

/**
 * Runs the program with this one's standard streams and passes signals on to it. Gives its exit status, 128 and
 * the signal's number when a signal ended it. Throws `TOOL` when it cannot be started.
 */
export async function runInForeground(argv: readonly string[], options: SpawnOptions = {}): Promise<number> {
  const [command = '', ...args] = argv
  const hasTerminal = process.stdin.isTTY
  let child: ChildProcess | undefined
  const forward = (signal: NodeJS.Signals) => {
    if (!hasTerminal || !FROM_TERMINAL.has(signal)) child?.kill(signal)
  }
  // Before it is there: once it has said a word, a signal is for it. One that comes sooner is handled after this turn.
  for (const signal of FORWARDED) process.on(signal, forward)
  try {
    const started = (child = spawn(command, args, { stdio: 'inherit', env: toolEnv(), ...options }))
    return await new Promise((resolve, reject) => {
      started.once('error', err =>
        reject(new CulvertError('TOOL', `could not run ${command}`, { cause: err })),
      )
      started.once('exit', (code, signal) => resolve(exitStatus(code, signal)))
    })
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward)
  }
}
