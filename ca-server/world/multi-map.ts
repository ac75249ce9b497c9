/** A map from a key to the set of values under it; a key without values takes no memory. */

const NONE: ReadonlySet<never> = new Set<never>()

export class MultiMap<K, V> {
  readonly #sets = new Map<K, Set<V>>()

  get(key: K): ReadonlySet<V> {
    return this.#sets.get(key) ?? NONE
  }

  add(key: K, value: V): void {
    const set = this.#sets.get(key)
    if (set) set.add(value)
    else this.#sets.set(key, new Set([value]))
  }

  delete(key: K, value: V): void {
    const set = this.#sets.get(key)
    if (set?.delete(value) && set.size === 0) this.#sets.delete(key)
  }

  /** `add` when `present`, else `delete`. */
  put(key: K, value: V, present: boolean): void {
    if (present) this.add(key, value)
    else this.delete(key, value)
  }
}
