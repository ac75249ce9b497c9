/**
 * Received bytes that nobody takes yet. A peer may fill a window of 4 MiB with frames of one byte: each would cost a
 * hundred times that. Small pieces are joined; large ones are copied, as what they are cut from is used again.
 */

/** Below this pieces are joined. */
export const SMALL_PIECE = 8 * 1024
const SLAB_BYTES = 16 * 1024

export class Gathered {
  #pieces: Buffer[] = []
  #slab: Buffer | undefined
  #at = 0

  get isEmpty(): boolean {
    return this.#pieces.length === 0 && this.#at === 0
  }

  push(piece: Buffer): void {
    if (piece.length >= SMALL_PIECE) {
      this.#cut()
      this.#pieces.push(Buffer.from(piece))
      return
    }
    if (this.#slab && this.#slab.length - this.#at < piece.length) this.#cut()
    this.#slab ??= Buffer.allocUnsafeSlow(SLAB_BYTES)
    piece.copy(this.#slab, this.#at)
    this.#at += piece.length
  }

  /** Everything, in order; nothing is left. */
  take(): Buffer[] {
    this.#cut()
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  #cut(): void {
    if (this.#slab && this.#at > 0) this.#pieces.push(this.#slab.subarray(0, this.#at))
    this.#slab = undefined
    this.#at = 0
  }
}
