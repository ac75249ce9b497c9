/**
 * Frames that move no application byte cost the sender next to nothing and us some work. A token bucket per
 * connection: honest bursts pass, a flood ends the session (CVE-2023-44487 and its kin).
 */
import { CONTROL_BURST, CONTROL_RATE_PER_SECOND } from './limits.ts'
import { CODE, SessionError } from './protocol.ts'

export class ControlBudget {
  #tokens = CONTROL_BURST
  #filledAt = performance.now()

  /** Counts one frame. Throws `SessionError(ENHANCE_YOUR_CALM)` when there were too many. */
  spend(what: string): void {
    if (--this.#tokens >= 0) return
    const now = performance.now()
    // The clock is only read when the bucket is empty, and fills it for all the time since.
    this.#tokens = Math.min(CONTROL_BURST, ((now - this.#filledAt) / 1000) * CONTROL_RATE_PER_SECOND) - 1
    this.#filledAt = now
    if (this.#tokens < 0)
      throw new SessionError(CODE.enhanceYourCalm, `too many control frames (${what})`, {
        limit: 'CONTROL_BURST',
      })
  }
}
