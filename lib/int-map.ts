/**
 * A map from whole numbers for what comes and goes thousands of times a second. A `Map` leaves a table behind each time
 * that its free places are used up, which keeps hold of the next one and of everything that stood in itself: once one of
 * them has grown old, all that come after it outlive every small collection, with all that was ever in them. Here a place
 * that is given up is empty, and one table serves for ever.
 */
const SMALLEST = 8

export class IntMap<V> {
  #keys = filled(SMALLEST, 0)
  #values = filled<V | undefined>(SMALLEST, undefined)
  #mask = SMALLEST - 1
  #size = 0

  get size(): number {
    return this.#size
  }

  get(key: number): V | undefined {
    return this.#values[this.#place(key)]
  }

  has(key: number): boolean {
    return this.#values[this.#place(key)] !== undefined
  }

  set(key: number, value: NonNullable<V>): void {
    const at = this.#place(key)
    if (this.#values[at] === undefined) this.#size++
    this.#keys[at] = key
    this.#values[at] = value
    if (this.#size * 2 > this.#mask) this.#resize((this.#mask + 1) * 2)
  }

  /** Reports whether it was there. */
  delete(key: number): boolean {
    let hole = this.#place(key)
    if (this.#values[hole] === undefined) return false
    this.#size--
    // Who stands behind and would have liked to stand here moves up: no search may end at a hole before its goal.
    for (let at = this.#next(hole); this.#values[at] !== undefined; at = this.#next(at)) {
      const wanted = this.#hash(this.#keys[at]!)
      const isBetween = hole <= at ? hole < wanted && wanted <= at : hole < wanted || wanted <= at
      if (isBetween) continue
      this.#keys[hole] = this.#keys[at]!
      this.#values[hole] = this.#values[at]
      hole = at
    }
    this.#values[hole] = undefined
    if (this.#mask >= SMALLEST && this.#size * 16 < this.#mask) this.#resize((this.#mask + 1) / 2)
    return true
  }

  /** What is in it at present, in no order. */
  values(): V[] {
    return this.#values.filter(value => value !== undefined)
  }

  clear(): void {
    this.#size = 0
    this.#resize(SMALLEST)
  }

  /** Where the key stands, or would. */
  #place(key: number): number {
    let at = this.#hash(key)
    while (this.#values[at] !== undefined && this.#keys[at] !== key) at = this.#next(at)
    return at
  }

  #hash(key: number): number {
    return (Math.imul(key, 0x9e3779b1) >>> 7) & this.#mask
  }

  #next(at: number): number {
    return (at + 1) & this.#mask
  }

  #resize(places: number): void {
    const keys = this.#keys
    const values = this.#values
    const isEmptied = this.#size === 0
    this.#keys = filled(places, 0)
    this.#values = filled<V | undefined>(places, undefined)
    this.#mask = places - 1
    if (isEmptied) return
    for (let at = 0; at < values.length; at++) {
      const value = values[at]
      if (value === undefined) continue
      const to = this.#place(keys[at]!)
      this.#keys[to] = keys[at]!
      this.#values[to] = value
    }
  }
}

/** An array without holes. */
function filled<T>(length: number, value: T): T[] {
  return Array.from<T>({ length }).fill(value)
}
