/** Since when something has been so, as found in rounds: what is not found in a round has ended. */
export class Since {
  readonly #since = new Map<string, { readonly atMs: number; round: number }>()
  #round = 0

  /** It is so now; gives when it was first found so. */
  since(key: string, nowMs: number): number {
    const found = this.#since.get(key) ?? { atMs: nowMs, round: 0 }
    found.round = this.#round
    this.#since.set(key, found)
    return found.atMs
  }

  endRound(): void {
    for (const [key, { round }] of this.#since) if (round !== this.#round) this.#since.delete(key)
    this.#round++
  }

  clear(): void {
    this.#since.clear()
  }
}
