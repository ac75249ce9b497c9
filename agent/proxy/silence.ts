/** Watches a connection of which one direction has ended: silent for too long, it is given up. */
export class Silence {
  readonly #timer: NodeJS.Timeout

  constructor(longestMs: number, onTooLong: (why: string) => void) {
    const tooLong = () => onTooLong(`half-closed, and silent for ${longestMs} ms`)
    this.#timer = setTimeout(tooLong, longestMs).unref()
  }

  /** Bytes have passed. */
  broken(): void {
    this.#timer.refresh()
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}
