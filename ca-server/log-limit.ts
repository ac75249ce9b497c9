/** Log lines that strangers can cause: the first of each kind in a period are written, the rest are counted. */
import type { Logger } from '../lib/log.ts'

export interface LogLimitOptions {
  /** Lines of a kind in a period. @default 20 */
  readonly lines?: number
  /** @default 10000 */
  readonly periodMs?: number
}

interface Kind {
  sinceMs: number
  written: number
  suppressed: number
}

export class LogLimit {
  readonly #log: Logger
  readonly #lines: number
  readonly #periodMs: number
  readonly #kinds = new Map<string, Kind>()

  constructor(log: Logger, options: LogLimitOptions = {}) {
    this.#log = log
    this.#lines = options.lines ?? 20
    this.#periodMs = options.periodMs ?? 10_000
  }

  /** Warns, unless there were too many of this kind. Kinds are few and known: they are not evicted. */
  warn(kind: string, fields: Record<string, unknown>, message: string): void {
    const nowMs = performance.now()
    let entry = this.#kinds.get(kind)
    if (!entry || nowMs - entry.sinceMs > this.#periodMs) {
      const suppressed = entry?.suppressed ?? 0
      this.#kinds.set(kind, (entry = { sinceMs: nowMs, written: 0, suppressed: 0 }))
      if (suppressed > 0) this.#log.warn({ kind, suppressed }, 'more of these were not logged')
    }
    if (entry.written >= this.#lines) {
      entry.suppressed++
      return
    }
    entry.written++
    this.#log.warn(fields, message)
  }
}
