/** Answers that are kept for a while: the least recently used go first when there are too many. */

export class LRUMap<K, V extends Promise<unknown>> {
  readonly #capacity: number
  readonly #entries = new Map<K, V>()

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  /** The kept answer, or a new one; an answer that fails is not kept. */
  getOrAsk(key: K, ask: () => V): V {
    const kept = this.#entries.get(key)
    if (kept !== undefined) {
      this.#entries.delete(key)
      this.#entries.set(key, kept) // a Map keeps insertion order: the oldest is first
      return kept
    }
    const answer = ask()
    this.#entries.set(key, answer)
    answer.catch(() => {
      if (this.#entries.get(key) === answer) this.#entries.delete(key)
    })
    if (this.#entries.size > this.#capacity) {
      const [oldest] = this.#entries.keys()
      this.#entries.delete(oldest!)
    }
    return answer
  }

  clear(): void {
    this.#entries.clear()
  }
}
