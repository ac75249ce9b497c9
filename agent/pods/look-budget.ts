/** How often one pod may be looked at: a few times at once, then at a steady rate (a token bucket). */

const MAX_LOOKS = 5
const REFILL_MS = 500

export class LookBudget {
  #looks = MAX_LOOKS
  #countedAtMs = 0

  /** Takes one look if there is one. `nowMs` never goes back by much: a clock set back only delays. */
  take(nowMs: number): boolean {
    const gained = Math.floor((nowMs - this.#countedAtMs) / REFILL_MS)
    if (gained > 0) {
      this.#looks = Math.min(MAX_LOOKS, this.#looks + gained)
      this.#countedAtMs = this.#looks === MAX_LOOKS ? nowMs : this.#countedAtMs + gained * REFILL_MS
    }
    if (this.#looks === 0) return false
    this.#looks--
    return true
  }
}
