/**
 * Moves something to what is wanted, which may change at any time: one loop takes the steps, and tries again what failed.
 * A new wish interrupts the step under way; when that has ended, well or not, the next one is towards the new wish.
 */
import { Backoff } from '../../lib/backoff.ts'

const FIRST_RETRY_MS = 100
const MOST_RETRY_MS = 5000

export interface Steps<Wish> {
  /** Rejects when it failed, or was interrupted: the signal is the wish's. */
  step(wish: Wish, signal: AbortSignal): Promise<void>
  /** A step failed and its wish still holds: it is tried again. */
  failed(err: unknown): void
}

export class Reconciler<Wish> {
  #wish: Wish
  #isMoving = false
  #settled: PromiseWithResolvers<void> = Promise.withResolvers()
  #isSettled = false
  #interrupt = new AbortController()
  readonly #steps: Steps<Wish>

  /** Nothing is done towards the first wish. */
  constructor(wish: Wish, steps: Steps<Wish>) {
    this.#wish = wish
    this.#steps = steps
  }

  get wish(): Wish {
    return this.#wish
  }

  /** Ends when what is wanted now is so, or as near as can be. Never rejects. */
  get settled(): Promise<void> {
    return this.#settled.promise
  }

  /** What is wanted from now on, also when it is the same again. Returns `settled`. */
  aim(wish: Wish): Promise<void> {
    this.#wish = wish
    this.#interrupt.abort()
    this.#interrupt = new AbortController()
    // Whoever waited has been told of another wish.
    if (this.#isSettled) this.#settled = Promise.withResolvers()
    this.#isSettled = false
    if (!this.#isMoving) {
      this.#isMoving = true
      void this.#move()
    }
    return this.#settled.promise
  }

  /** For a step, with its signal: it is as near as can be for now, though the step goes on. */
  settle(signal: AbortSignal): void {
    if (signal.aborted) return
    this.#isSettled = true
    this.#settled.resolve()
  }

  async #move(): Promise<void> {
    const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MOST_RETRY_MS })
    for (;;) {
      const wish = this.#wish
      const { signal } = this.#interrupt
      try {
        await this.#steps.step(wish, signal)
        if (signal.aborted) {
          backoff.reset()
          continue
        }
        this.#isMoving = false
        return this.settle(signal)
      } catch (err) {
        if (signal.aborted) continue
        this.#steps.failed(err)
        this.settle(signal)
        await backoff.wait(signal)
      }
    }
  }
}
