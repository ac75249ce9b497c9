/** Running a program to its end, with what it said in the error when it fails. */
import { spawn } from 'node:child_process'
import { CulvertError } from '../lib/errors.ts'
import { toolEnv } from '../lib/tool-path.ts'

export interface Ran {
  /** The exit status; 128 and the signal's number for a process that a signal ended, as shells have it. */
  readonly code: number
  readonly stdout: Buffer
  readonly stderr: string
}

export interface RunOptions {
  /** What the program reads; nothing by default. */
  readonly input?: string | Uint8Array
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** Ends the program with SIGKILL. */
  readonly signal?: AbortSignal
}

const SIGNAL_NUMBERS: Readonly<Partial<Record<NodeJS.Signals, number>>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
}

/** What a shell would say of this end. */
export function exitStatus(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + ((signal && SIGNAL_NUMBERS[signal]) ?? 0)
}

/** Runs a program and collects what it says. Throws `TOOL` only when it cannot be started. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const [command = '', ...args] = argv
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: 'pipe',
      env: options.env ?? toolEnv(),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { signal: options.signal, killSignal: 'SIGKILL' as const }),
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.once('error', err => reject(new CulvertError('TOOL', `could not run ${command}`, { cause: err })))
    child.stdout.on('data', (chunk: Buffer) => void stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => void stderr.push(chunk))
    // A program may end without reading all of its input; how it ended says whether that was wrong.
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input)
    child.once('close', (code, signal) =>
      resolve({
        code: exitStatus(code, signal),
        stdout: Buffer.concat(stdout),
        stderr: Buffer.concat(stderr).toString(),
      }),
    )
  })
}

/** Runs a program that must succeed. Throws `TOOL` with what it wrote to standard error. */
export async function runOk(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const ran = await run(argv, options)
  if (ran.code !== 0)
    throw new CulvertError(
      'TOOL',
      `${argv.join(' ')} failed (${ran.code}): ${ran.stderr.trim() || 'no message'}`,
    )
  return ran
}
