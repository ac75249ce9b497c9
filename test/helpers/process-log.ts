/** What a program says, line by line, for tests that wait for it to say something; and the end of the program. */
import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { CulvertError } from '../../lib/errors.ts'

/** A line of JSON; one of anything else is its `message`. */
export type LogLine = Readonly<Record<string, unknown>>

/** For a machine with much else to do. */
const TIMEOUT_MS = 30_000

export class ProcessLog {
  readonly #name: string
  readonly #process: ChildProcess
  readonly #lines: LogLine[] = []
  readonly #watchers = new Set<() => void>()
  readonly #ended: Promise<void>
  #hasEnded = false

  /** `name` is for messages. The program's output is piped. */
  constructor(name: string, process: ChildProcess) {
    this.#name = name
    this.#process = process
    process.on('error', () => undefined) // 'close' comes too
    for (const stream of [process.stdout!, process.stderr!])
      createInterface({ input: stream }).on('line', line => {
        this.#lines.push(parsed(line))
        this.#look()
      })
    this.#ended = new Promise(resolve =>
      process.once('close', () => {
        this.#hasEnded = true
        this.#look()
        resolve()
      }),
    )
  }

  /** What it has said until now. */
  get lines(): readonly LogLine[] {
    return this.#lines
  }

  /** The first line that fits, past or future. Throws `TIMEOUT` with what was waited for. */
  line(what: string, fits: (line: LogLine) => boolean, timeoutMs = TIMEOUT_MS): Promise<LogLine> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) => {
        done()
        const last = this.#lines.slice(-5).map(line => JSON.stringify(line))
        const message = `${this.#name} did not say ${what}: ${why}\n${last.join('\n')}`
        reject(new CulvertError('TIMEOUT', message))
      }
      const look = () => {
        const found = this.#lines.find(line => fits(line))
        if (found) {
          done()
          resolve(found)
        } else if (this.#hasEnded) fail('it has ended')
      }
      const timer = setTimeout(() => fail(`not within ${timeoutMs} ms`), timeoutMs)
      const done = () => {
        clearTimeout(timer)
        this.#watchers.delete(look)
      }
      this.#watchers.add(look)
      look()
    })
  }

  /** What was said up to now is of no interest any more. */
  forget(): void {
    this.#lines.length = 0
  }

  /** Ends the program, if it has not ended, and waits for that. */
  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#process.kill(signal)
    await this.#ended
  }

  #look(): void {
    for (const look of this.#watchers) look()
  }
}

function parsed(line: string): LogLine {
  try {
    return JSON.parse(line) as LogLine
  } catch {
    return { message: line }
  }
}
