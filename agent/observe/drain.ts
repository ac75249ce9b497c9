/**
 * An orderly stop: one trigger, and a watcher for each part that has something to finish. Whoever holds a watcher holds
 * the stop up, until the deadline.
 */
import { systemClock, type Clock } from '../../lib/clock.ts'
import { CulvertError } from '../../lib/errors.ts'

export interface DrainWatcher {
  /** Aborts when the drain begins: stop taking new work, finish what is open. */
  readonly draining: AbortSignal
  /** Aborts at the deadline: cut what is still open. */
  readonly cut: AbortSignal
  /** This part has finished. */
  done(): void
}

export interface DrainResult {
  /** Whether every part finished by itself. */
  readonly isOrderly: boolean
  /** The parts that were cut, by name. */
  readonly cut: readonly string[]
}

export class Drain {
  readonly #clock: Clock
  readonly #draining = new AbortController()
  readonly #cut = new AbortController()
  readonly #open = new Map<symbol, string>()
  readonly #finished = Promise.withResolvers<void>()

  constructor(clock: Clock = systemClock) {
    this.#clock = clock
  }

  /** Holds a later stop up. Throws `CLOSED` once the drain has begun: nothing new may start then. */
  watch(name: string): DrainWatcher {
    if (this.#draining.signal.aborted)
      throw new CulvertError('CLOSED', `'${name}' cannot start: the agent is stopping`)
    const key = Symbol(name)
    this.#open.set(key, name)
    return {
      draining: this.#draining.signal,
      cut: this.#cut.signal,
      done: () => {
        this.#open.delete(key)
        this.#check()
      },
    }
  }

  /** Begins the drain; ends when every part has finished, or at the deadline. Later calls wait for the first. */
  async start(deadlineMs: number, reason: string): Promise<DrainResult> {
    const { promise: deadline, resolve } = Promise.withResolvers<void>()
    const timer = this.#clock.after(deadlineMs, resolve)
    this.#draining.abort(reason)
    this.#check()
    await Promise.race([this.#finished.promise, deadline])
    timer.cancel()
    const cut = [...this.#open.values()]
    if (cut.length > 0) this.#cut.abort(reason)
    return { isOrderly: cut.length === 0, cut }
  }

  #check(): void {
    if (this.#draining.signal.aborted && this.#open.size === 0) this.#finished.resolve()
  }
}
