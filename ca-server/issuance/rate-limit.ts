/** A token bucket for each caller, so that one node that asks in a loop does not starve the others. */

export interface RateLimitOptions {
  /** Calls a second that each key may make for ever; 0 switches the limit off. */
  readonly perSecond: number
  /** Calls that it may make at once after a quiet time. */
  readonly burst: number
  /** Milliseconds of a clock that never goes back. @default performance.now */
  readonly nowMs?: () => number
}

// Buckets that are full again say nothing and are dropped; this bounds how many may pile up in between.
const SWEEP_ABOVE = 1000

interface Bucket {
  tokens: number
  atMs: number
}

export class RateLimit {
  readonly #options: RateLimitOptions
  readonly #nowMs: () => number
  readonly #buckets = new Map<string, Bucket>()
  #sweepAbove = SWEEP_ABOVE

  constructor(options: RateLimitOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? (() => performance.now())
  }

  /** Takes one call of `key` into account; reports whether it may go on. */
  take(key: string): boolean {
    const { perSecond, burst } = this.#options
    if (perSecond === 0) return true
    const now = this.#nowMs()
    let bucket = this.#buckets.get(key)
    if (!bucket) {
      this.#sweep(now)
      this.#buckets.set(key, (bucket = { tokens: burst, atMs: now }))
    }
    bucket.tokens = this.#refilled(bucket, now)
    bucket.atMs = now
    if (bucket.tokens < 1) return false
    bucket.tokens -= 1
    return true
  }

  #refilled(bucket: Bucket, now: number): number {
    const { perSecond, burst } = this.#options
    return Math.min(burst, bucket.tokens + ((now - bucket.atMs) / 1000) * perSecond)
  }

  #sweep(now: number): void {
    if (this.#buckets.size < this.#sweepAbove) return
    for (const [key, bucket] of this.#buckets)
      if (this.#refilled(bucket, now) >= this.#options.burst) this.#buckets.delete(key)
    this.#sweepAbove = Math.max(SWEEP_ABOVE, this.#buckets.size * 2)
  }
}
