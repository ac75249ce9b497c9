/**
 * A program that the bench has started and ends again: the proxies of an arm, the servers and clients in the pods. What
 * it says on standard error is kept, as far as an error message has room for it; standard output belongs to whoever
 * asks for its lines.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import { CulvertError } from '../lib/errors.ts'
import { toolEnv } from '../lib/tool-path.ts'

const KEPT_CHARACTERS = 2000
/** What a program is given to end in, ms, before it is killed. */
const GRACE_MS = 2000

export interface BenchProcessOptions {
  /** For messages. */
  readonly name: string
  readonly argv: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** @default / */
  readonly cwd?: string
}

export class BenchProcess {
  readonly name: string
  readonly #child: ChildProcess
  readonly #lines: Interface
  readonly #unread: string[] = []
  #waiting: { resolve: (line: string) => void; reject: (err: unknown) => void } | undefined
  #said = ''
  /** How it ended: `exit 1`, `SIGKILL`. */
  #end: string | undefined
  readonly #ended: Promise<void>

  constructor({ name, argv, env = toolEnv(), cwd = '/' }: BenchProcessOptions) {
    this.name = name
    const [command = '', ...args] = argv
    const child = spawn(command, args, { stdio: 'pipe', env, cwd })
    this.#child = child
    child.stdin.on('error', () => undefined) // it has ended; that is told by its end
    child.stderr.on('error', () => undefined)
    child.stderr.on('data', (chunk: Buffer) => this.#hear(chunk.toString()))
    this.#lines = createInterface({ input: child.stdout })
    this.#lines.on('line', line => {
      const { resolve } = this.#waiting ?? {}
      this.#waiting = undefined
      if (resolve) resolve(line)
      else this.#unread.push(line)
    })
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#ended = promise
    const end = (how: string) => {
      this.#end ??= how
      this.#waiting?.reject(this.#failure())
      this.#waiting = undefined
      resolve()
    }
    child.once('error', err => {
      this.#hear(err.message)
      end('could not be started')
    })
    // Not 'exit': what it has said last may still be on its way then.
    child.once('close', (code, signal) => end(signal ?? `exit ${code}`))
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw this.#failure()
    return this.#child.pid
  }

  /** Throws `TOOL` with what it said last when it has ended. */
  check(): void {
    if (this.#end !== undefined) throw this.#failure()
  }

  /** The next line of its standard output. Throws `TOOL` when it ends without one, or the signal's reason. */
  async line(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const unread = this.#unread.shift()
    if (unread !== undefined) return unread
    this.check()
    const waiting = Promise.withResolvers<string>()
    this.#waiting = waiting
    const abort = () => waiting.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await waiting.promise
    } finally {
      signal.removeEventListener('abort', abort)
      this.#waiting = undefined
    }
  }

  /** What else it prints until it ends. Throws the signal's reason. */
  async rest(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      await Promise.race([this.#ended, aborted.promise])
    } finally {
      signal.removeEventListener('abort', abort)
    }
    return this.#unread.splice(0).join('\n')
  }

  /** Writes a line to its standard input. */
  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`)
  }

  /** Ends it, and resolves when it is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#end === undefined) {
      this.#child.kill(signal)
      const killer = setTimeout(() => this.#child.kill('SIGKILL'), GRACE_MS)
      await this.#ended
      clearTimeout(killer)
    }
    this.#lines.close()
  }

  #hear(text: string): void {
    this.#said = (this.#said + text).slice(-KEPT_CHARACTERS)
  }

  #failure(): CulvertError {
    const said = this.#said.trim()
    return new CulvertError('TOOL', `${this.name} ended (${this.#end})${said === '' ? '' : `: ${said}`}`)
  }
}
