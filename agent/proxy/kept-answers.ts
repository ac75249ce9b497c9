/**
 * Answers that are kept for a while, those that were used last for certain. In two halves: what is used is, or comes,
 * into the newer one; when that is full the older one goes, and it takes its place. An answer that is used for every
 * connection is only looked at, where a list in order of use would be rearranged each time.
 */
export class KeptAnswers<K, V extends Promise<unknown>> {
  readonly #half: number
  #newer = new Map<K, V>()
  #older = new Map<K, V>()

  /** Keeps at most `capacity`, which is two or more, and the last half as many that were used. */
  constructor(capacity: number) {
    this.#half = Math.floor(capacity / 2)
  }

  get size(): number {
    return this.#newer.size + this.#older.size
  }

  /** The kept answer, or a new one; an answer that fails is not kept. */
  getOrAsk(key: K, ask: () => V): V {
    const kept = this.#newer.get(key)
    if (kept !== undefined) return kept
    const older = this.#older.get(key)
    if (older !== undefined) {
      this.#older.delete(key)
      return this.#keep(key, older)
    }
    const answer = this.#keep(key, ask())
    answer.catch(() => {
      for (const half of [this.#newer, this.#older]) if (half.get(key) === answer) half.delete(key)
    })
    return answer
  }

  clear(): void {
    this.#newer.clear()
    this.#older.clear()
  }

  #keep(key: K, answer: V): V {
    if (this.#newer.size >= this.#half) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(key, answer)
    return answer
  }
}
