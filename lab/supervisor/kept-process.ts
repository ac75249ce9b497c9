/**
 * A program that the supervisor keeps running: started again when it ends, until it is told to stop. What it
 * says goes straight to its log file, so nothing is lost or delayed when the supervisor is busy or dead.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { errorText } from '../../lib/errors.ts'
import { processRef, signalPid, type ProcessRef } from '../processes.ts'

export interface KeptProcessOptions {
  /** For the state file and messages: `ca-server`, `agent-node-a`, `shop/client app`. */
  readonly name: string
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly logFile: string
  /** Wait before the n-th restart in a row (from 1), milliseconds. */
  readonly restartDelayMs: (restart: number) => number
  /** The program writes to descriptor 3 once it serves; without this it counts as ready when it is started. */
  readonly tellsReady?: boolean
  /** A process group of its own, so that its children end with it. */
  readonly isGroup?: boolean
  /** Called when a process begins or ends. */
  readonly changed: () => void
}

/** A process that lived so long did not fail at its start: restarts are counted anew. */
const SETTLED_MS = 10_000

export class KeptProcess {
  readonly name: string
  readonly #options: KeptProcessOptions
  #child: ChildProcess | undefined
  #ref: ProcessRef | undefined
  #exited: Promise<void> = Promise.resolve()
  #isWanted = false
  #isReady = false
  #timer: NodeJS.Timeout | undefined
  #restarts = 0
  #inARow = 0
  #lastExit: string | undefined

  constructor(options: KeptProcessOptions) {
    this.name = options.name
    this.#options = options
  }

  /** The process that runs now. */
  get ref(): ProcessRef | undefined {
    return this.#ref
  }

  get isReady(): boolean {
    return this.#isReady
  }

  /** How often it was started again. */
  get restarts(): number {
    return this.#restarts
  }

  /** How it ended last: `exit 1`, `SIGKILL`. */
  get lastExit(): string | undefined {
    return this.#lastExit
  }

  start(): void {
    this.#isWanted = true
    if (!this.#child && !this.#timer) this.#spawn()
  }

  /** Signals the process, as someone from outside would; it is started again if that ends it. Reports whether it ran. */
  signal(signal: NodeJS.Signals): boolean {
    return (
      this.#ref !== undefined && signalPid(this.#options.isGroup ? -this.#ref.pid : this.#ref.pid, signal)
    )
  }

  /** Ends it for good: first with `signal`, after `graceMs` with SIGKILL. Resolves when it is gone. */
  async stop(signal: NodeJS.Signals, graceMs: number): Promise<void> {
    this.#isWanted = false
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (!this.#child) return
    this.signal(signal)
    const killer = setTimeout(() => this.signal('SIGKILL'), graceMs)
    await this.#exited
    clearTimeout(killer)
  }

  #spawn(): void {
    this.#timer = undefined
    const { argv, env, logFile, tellsReady = false, isGroup = false, changed } = this.#options
    const [command = '', ...args] = argv
    const log = openSync(logFile, 'a', 0o600)
    const startedAt = performance.now()
    const exited = Promise.withResolvers<void>()
    this.#exited = exited.promise
    try {
      const child = spawn(command, args, {
        stdio: tellsReady ? ['ignore', log, log, 'pipe'] : ['ignore', log, log],
        env,
        cwd: '/',
        detached: isGroup,
      })
      this.#child = child
      this.#ref = child.pid === undefined ? undefined : processRef(child.pid)
      this.#isReady = !tellsReady
      if (tellsReady) this.#awaitReady(child.stdio[3] as Readable)
      let hasEnded = false
      const ended = (how: string) => {
        if (hasEnded) return
        hasEnded = true
        this.#ended(how, performance.now() - startedAt)
        exited.resolve()
      }
      child.once('error', err => ended(errorText(err)))
      child.once('exit', (code, signal) => ended(signal ?? `exit ${code}`))
    } finally {
      closeSync(log)
    }
    changed()
  }

  #awaitReady(pipe: Readable): void {
    pipe.once('data', () => {
      this.#isReady = true
      pipe.destroy()
      this.#options.changed()
    })
    pipe.on('error', () => undefined) // the process is gone; its exit says so
  }

  #ended(how: string, livedMs: number): void {
    this.#child = undefined
    this.#ref = undefined
    this.#isReady = false
    this.#lastExit = how
    if (this.#isWanted) {
      if (livedMs > SETTLED_MS) this.#inARow = 0
      this.#restarts++
      const delayMs = this.#options.restartDelayMs(++this.#inARow)
      this.#note(`${this.name} ended (${how}); starting it again${delayMs > 0 ? ` in ${delayMs} ms` : ''}`)
      if (delayMs > 0) this.#timer = setTimeout(() => this.#spawn(), delayMs)
      else this.#spawn()
    }
    this.#options.changed()
  }

  #note(text: string): void {
    const log = openSync(this.#options.logFile, 'a', 0o600)
    writeSync(log, `lab: ${text}\n`)
    closeSync(log)
  }
}
