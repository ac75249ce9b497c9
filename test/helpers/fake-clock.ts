/** A clock that stands still until it is told to go on. */
import type { Clock, Timer } from '../../lib/clock.ts'

interface Pending {
  readonly atMs: number
  readonly work: () => void
}

export class FakeClock implements Clock {
  #nowMs: number
  readonly #pending = new Set<Pending>()

  constructor(nowMs = Date.now()) {
    this.#nowMs = nowMs
  }

  now(): number {
    return this.#nowMs
  }

  after(delayMs: number, work: () => void): Timer {
    const pending = { atMs: this.#nowMs + Math.max(0, delayMs), work }
    this.#pending.add(pending)
    return { cancel: () => this.#pending.delete(pending) }
  }

  /** Timers that have not fired. */
  get timers(): number {
    return this.#pending.size
  }

  /** Goes on by `ms`; what falls due on the way runs at its own time, in order. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms
    for (;;) {
      const [next] = [...this.#pending].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)
      if (!next) break
      this.#pending.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.work()
    }
    this.#nowMs = endMs
  }
}
