/** Time as something that can be handed in, so that a day passes in a test within a millisecond. */

export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Unix time in milliseconds. */
  now(): number
  /** Runs `work` once, `delayMs` from now; any length is fine. The timer keeps the process alive. */
  after(delayMs: number, work: () => void): Timer
}

// setTimeout takes 31 bits and fires at once beyond them; half of a 90-day certificate is beyond them.
const LONGEST_MS = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, work) {
    let left = Math.max(0, delayMs)
    let handle: NodeJS.Timeout
    const arm = () => {
      const step = Math.min(left, LONGEST_MS)
      left -= step
      handle = setTimeout(() => (left > 0 ? arm() : work()), step)
    }
    arm()
    return { cancel: () => clearTimeout(handle) }
  },
}
