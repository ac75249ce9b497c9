/**
 * One copy of what many workloads have in common: node and namespace names, port maps, identities. A cluster of
 * a hundred thousand pods says the same few thousand things over and over, and decoding makes a new string of
 * each. What nobody has asked for in two generations is forgotten here, so names that come and go do not pile up.
 */

const DEFAULT_GENERATION = 65_536

export class Interner<T> {
  readonly #generationSize: number
  #young = new Map<string, T>()
  #old = new Map<string, T>()

  /** @param generationSize entries after which the older generation is forgotten */
  constructor(generationSize = DEFAULT_GENERATION) {
    this.#generationSize = generationSize
  }

  /** The value kept under the key; the first to ask makes it. */
  get(key: string, make: () => T): T {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const value = this.#old.get(key) ?? make()
    if (this.#young.size >= this.#generationSize) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, value)
    return value
  }

  get size(): number {
    return this.#young.size + this.#old.size
  }
}
