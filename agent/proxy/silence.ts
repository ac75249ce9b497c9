/** Watches a connection from the end of its first direction on: silent for too long, it is given up. */
export class Silence {
  readonly #longestMs: number
  readonly #onTooLong: (why: string) => void
  #timer: NodeJS.Timeout | undefined

  constructor(longestMs: number, onTooLong: (why: string) => void) {
    this.#longestMs = longestMs
    this.#onTooLong = onTooLong
  }

  begin(): void {
    const tooLong = () => this.#onTooLong(`half-closed, and silent for ${this.#longestMs} ms`)
    this.#timer ??= setTimeout(tooLong, this.#longestMs).unref()
  }

  /** Bytes have passed. */
  broken(): void {
    this.#timer?.refresh()
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}
