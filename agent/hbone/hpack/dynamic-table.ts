/**
 * The table of recent headers that both ends of a connection keep alike (RFC 7541 §2.3.2, §4). A ring: adding,
 * evicting and looking up cost the same however full it is. Its capacity counts each entry as its two lengths
 * and 32 bytes, so it bounds the number of entries too.
 */

/** RFC 7541 §4.1 and RFC 9113 §6.5.2: what an entry costs beside its two strings. */
export const ENTRY_OVERHEAD = 32

/** RFC 9113 §6.5.2: the capacity until something else was agreed, bytes. */
export const DEFAULT_TABLE_SIZE = 4096

const FIRST_SLOTS = 16 // a tunnel has five or six headers; the ring doubles when it must

export class DynamicTable {
  readonly #onEvict: ((name: string, value: string) => void) | undefined
  #names: string[]
  #values: string[]
  /** Slot of the next entry; the newest is the one before it. Slots are a power of two. */
  #next = 0
  #count = 0
  #size = 0
  #capacity: number

  /** `capacity` in bytes; `onEvict` hears of each entry that leaves, the oldest first. */
  constructor(capacity: number, onEvict?: (name: string, value: string) => void) {
    this.#capacity = capacity
    this.#onEvict = onEvict
    this.#names = Array.from<string>({ length: FIRST_SLOTS }).fill('')
    this.#values = Array.from<string>({ length: FIRST_SLOTS }).fill('')
  }

  /** Entries held. */
  get count(): number {
    return this.#count
  }

  /** Bytes held, as RFC 7541 §4.1 counts. */
  get size(): number {
    return this.#size
  }

  /** Bytes that may be held. */
  get capacity(): number {
    return this.#capacity
  }

  /** The name of an entry; 0 is the newest, `count - 1` the oldest. */
  name(position: number): string {
    return this.#names[(this.#next - 1 - position) & (this.#names.length - 1)]!
  }

  /** The value of an entry; 0 is the newest, `count - 1` the oldest. */
  value(position: number): string {
    return this.#values[(this.#next - 1 - position) & (this.#values.length - 1)]!
  }

  /**
   * Adds an entry, evicting the oldest until it fits. One that can never fit empties the table, which is no
   * error (RFC 7541 §4.4).
   */
  add(name: string, value: string): void {
    const size = name.length + value.length + ENTRY_OVERHEAD
    this.#evictDownTo(this.#capacity - size)
    if (size > this.#capacity) return
    if (this.#count === this.#names.length) this.#grow()
    this.#names[this.#next] = name
    this.#values[this.#next] = value
    this.#next = (this.#next + 1) & (this.#names.length - 1)
    this.#count++
    this.#size += size
  }

  /** Changes the capacity, evicting the oldest entries until the rest fits (RFC 7541 §4.3). */
  setCapacity(bytes: number): void {
    this.#capacity = bytes
    this.#evictDownTo(bytes)
  }

  #evictDownTo(bytes: number): void {
    while (this.#size > bytes && this.#count > 0) {
      const oldest = (this.#next - this.#count) & (this.#names.length - 1)
      const name = this.#names[oldest]!
      const value = this.#values[oldest]!
      this.#names[oldest] = this.#values[oldest] = '' // or the strings live for as long as the connection
      this.#count--
      this.#size -= name.length + value.length + ENTRY_OVERHEAD
      this.#onEvict?.(name, value)
    }
  }

  #grow(): void {
    const slots = this.#names.length * 2
    const names = Array.from<string>({ length: slots }).fill('')
    const values = Array.from<string>({ length: slots }).fill('')
    for (let at = 0; at < this.#count; at++) {
      names[at] = this.name(this.#count - 1 - at)
      values[at] = this.value(this.#count - 1 - at)
    }
    this.#names = names
    this.#values = values
    this.#next = this.#count
  }
}
