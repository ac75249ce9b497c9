/** Waiting longer and longer between tries, with jitter so that a thousand agents do not return in step. */
import { setTimeout as sleep } from 'node:timers/promises'

export interface BackoffOptions {
  /** Wait after the first failure, milliseconds. @default 100 */
  firstMs?: number
  /** Longest wait, milliseconds. @default 15000 */
  maxMs?: number
  /** Growth from one wait to the next. @default 2 */
  factor?: number
  /** Part of each wait that is random, 0..1. @default 0.2 */
  jitter?: number
  /** Gives 0..1. @default Math.random */
  random?: () => number
}

export class Backoff {
  readonly #options: Required<BackoffOptions>
  #nextMs: number

  constructor(options: BackoffOptions = {}) {
    this.#options = { firstMs: 100, maxMs: 15_000, factor: 2, jitter: 0.2, random: Math.random, ...options }
    this.#nextMs = this.#capped(this.#options.firstMs)
  }

  /** The next wait in milliseconds; each call grows the one after. */
  next(): number {
    const { factor, jitter, random } = this.#options
    const base = this.#nextMs
    this.#nextMs = this.#capped(base * factor)
    return Math.round(base * (1 - jitter + 2 * jitter * random()))
  }

  /** Back to the first wait: call it when a try has succeeded. */
  reset(): void {
    this.#nextMs = this.#capped(this.#options.firstMs)
  }

  /** Low enough that jitter cannot pass the longest wait: cutting it off there would bring everybody in step. */
  #capped(baseMs: number): number {
    const { maxMs, jitter } = this.#options
    return Math.min(baseMs, maxMs / (1 + jitter))
  }

  /** Waits for `next()`. Ends early, without an error, when the signal aborts: check it afterwards. */
  async wait(signal: AbortSignal): Promise<void> {
    await sleep(this.next(), undefined, { signal }).catch(() => undefined)
  }
}
