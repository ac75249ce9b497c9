/**
 * Writes header blocks (RFC 7541): one encoder a connection and direction; the blocks must be sent in the order
 * they were made, every one of them. What repeats from tunnel to tunnel (method, destination, baggage, status)
 * goes into the dynamic table and is one byte from then on; what never repeats is kept out of it, or it would
 * push the rest out. Strings are not Huffman coded: see huffman.ts.
 */
import { DEFAULT_TABLE_SIZE, DynamicTable, ENTRY_OVERHEAD } from './dynamic-table.ts'
import { compressionError, MAX_INTEGER_BYTES, writeInteger } from './integer.ts'
import { STATIC_BY_NAME, STATIC_ENTRIES } from './static-table.ts'

export interface EncoderOptions {
  /** Largest dynamic table to use, bytes, however much more the peer allows. @default 4096 */
  maxTableSize?: number
}

/** Different in every tunnel. */
const UNIQUE: ReadonlySet<string> = new Set(['forwarded', 'traceparent'])
/** Secret: also marked so that nobody on the way indexes them (RFC 7541 §7.1.3). */
const SECRET: ReadonlySet<string> = new Set(['authorization', 'proxy-authorization'])

/** The first byte's pattern bits and how many bits they leave to an index (RFC 7541 §6). */
const INDEXED = 0x80
const WITH_INDEXING = 0x40
const SIZE_UPDATE = 0x20
const NEVER_INDEXED = 0x10
const WITHOUT_INDEXING = 0x00

/** Where a name stands in the dynamic table, in entries added since the beginning, which eviction does not move. */
interface DynamicName {
  newest: number
  readonly values: Map<string, number>
}

/** Shared by every encoder of the thread; a longer block gets memory of its own. */
const scratch = Buffer.allocUnsafeSlow(16 * 1024)

export class HpackEncoder {
  readonly #table: DynamicTable
  readonly #names = new Map<string, DynamicName>()
  readonly #maxTableSize: number
  /** Entries added since the beginning; the last of them has the first dynamic index. */
  #added = 0
  /** The smallest capacity since the last block, when it has changed: the peer is told with the next one. */
  #smallestSize: number | undefined

  constructor(options: EncoderOptions = {}) {
    this.#maxTableSize = options.maxTableSize ?? DEFAULT_TABLE_SIZE
    this.#table = new DynamicTable(DEFAULT_TABLE_SIZE, (name, value) => this.#forget(name, value))
    this.setPeerMaxTableSize(DEFAULT_TABLE_SIZE)
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE, bytes; 4096 until it says otherwise. */
  setPeerMaxTableSize(bytes: number): void {
    const capacity = Math.min(bytes, this.#maxTableSize)
    if (capacity === this.#table.capacity) return
    this.#smallestSize = Math.min(capacity, this.#smallestSize ?? Infinity)
    this.#table.setCapacity(capacity)
  }

  /**
   * The block for the headers, in order; names in lower case (RFC 9113 §8.2.1 is for the caller to keep).
   * Throws `PROTOCOL`, changing nothing, when a string holds a character that is not one byte.
   */
  encode(headers: readonly (readonly [name: string, value: string])[]): Uint8Array {
    const room = roomFor(headers)
    const out = room <= scratch.length ? scratch : Buffer.allocUnsafeSlow(room)
    let at = this.#writeSizeUpdates(out, 0)
    for (const [name, value] of headers) at = this.#writeHeader(out, at, name, value)
    return Buffer.from(out.subarray(0, at))
  }

  /** RFC 7541 §4.2: the smallest size between two blocks, when it was smaller than the last, and the last. */
  #writeSizeUpdates(out: Uint8Array, at: number): number {
    if (this.#smallestSize === undefined) return at
    const { capacity } = this.#table
    if (this.#smallestSize < capacity) at = writeInteger(out, at, 5, SIZE_UPDATE, this.#smallestSize)
    this.#smallestSize = undefined
    return writeInteger(out, at, 5, SIZE_UPDATE, capacity)
  }

  #writeHeader(out: Buffer, at: number, name: string, value: string): number {
    const fixed = STATIC_BY_NAME.get(name)
    const fixedIndex = fixed?.values.get(value)
    if (fixedIndex !== undefined) return writeInteger(out, at, 7, INDEXED, fixedIndex)
    const known = this.#names.get(name)
    const added = known?.values.get(value)
    if (added !== undefined) return writeInteger(out, at, 7, INDEXED, this.#indexOf(added))

    const nameIndex = fixed?.index ?? (known ? this.#indexOf(known.newest) : 0)
    if (SECRET.has(name)) at = writeInteger(out, at, 4, NEVER_INDEXED, nameIndex)
    else if (!this.#isWorthIndexing(name, value)) at = writeInteger(out, at, 4, WITHOUT_INDEXING, nameIndex)
    else {
      at = writeInteger(out, at, 6, WITH_INDEXING, nameIndex)
      this.#remember(name, value)
    }
    if (nameIndex === 0) at = writeString(out, at, name)
    return writeString(out, at, value)
  }

  /** A header that would take more than three quarters of the table pushes out more than it brings. */
  #isWorthIndexing(name: string, value: string): boolean {
    const size = name.length + value.length + ENTRY_OVERHEAD
    return size * 4 <= this.#table.capacity * 3 && !UNIQUE.has(name)
  }

  #indexOf(added: number): number {
    return STATIC_ENTRIES + 1 + this.#added - added
  }

  #remember(name: string, value: string): void {
    this.#table.add(name, value)
    this.#added++
    const known = this.#names.get(name)
    if (!known) this.#names.set(name, { newest: this.#added, values: new Map([[value, this.#added]]) })
    else {
      known.newest = this.#added
      known.values.set(value, this.#added)
    }
  }

  /** Entries leave in the order they came: when a name's newest has gone, all of it has. */
  #forget(name: string, value: string): void {
    const known = this.#names.get(name)
    known?.values.delete(value)
    if (known?.values.size === 0) this.#names.delete(name)
  }
}

/** Bytes that the block cannot exceed. Throws `PROTOCOL` for a string that is not one byte a character. */
function roomFor(headers: readonly (readonly [name: string, value: string])[]): number {
  let room = 2 * MAX_INTEGER_BYTES
  for (const [name, value] of headers) {
    if (!isLatin1(name) || !isLatin1(value))
      throw compressionError(`header '${name}' holds a character that is not one byte`)
    room += name.length + value.length + 3 * MAX_INTEGER_BYTES
  }
  return room
}

function isLatin1(text: string): boolean {
  let bits = 0
  for (let at = 0; at < text.length; at++) bits |= text.charCodeAt(at)
  return bits < 0x100
}

function writeString(out: Buffer, at: number, text: string): number {
  at = writeInteger(out, at, 7, 0, text.length)
  return at + out.write(text, at, 'latin1')
}
