/**
 * A map from a key to the values under it, each once. A key without values takes no memory, and one with a single value
 * no set of its own: that is what most keys have, and a set takes 250 bytes. Values are no sets.
 */
const NONE: readonly never[] = []

export class MultiMap<K, V extends string | number | object> {
  readonly #values = new Map<K, V | Set<V>>()

  /** The values, in the order in which they came. Not to be kept: it may follow what happens next, or not. */
  get(key: K): Iterable<V> {
    const found = this.#values.get(key)
    if (found === undefined) return NONE
    return found instanceof Set ? found : [found]
  }

  has(key: K): boolean {
    return this.#values.has(key)
  }

  add(key: K, value: V): void {
    const found = this.#values.get(key)
    if (found === undefined) this.#values.set(key, value)
    else if (found instanceof Set) found.add(value)
    else if (found !== value) this.#values.set(key, new Set([found, value]))
  }

  delete(key: K, value: V): void {
    const found = this.#values.get(key)
    if (found instanceof Set) {
      found.delete(value)
      if (found.size === 1) this.#values.set(key, found.values().next().value!)
    } else if (found === value) this.#values.delete(key)
  }

  /** `add` when `present`, else `delete`. */
  put(key: K, value: V, present: boolean): void {
    if (present) this.add(key, value)
    else this.delete(key, value)
  }
}
