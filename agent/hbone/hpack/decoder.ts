/**
 * Reads header blocks (RFC 7541): one decoder a connection and direction, fed every block in the order of the
 * wire, because each may change the table that the next one refers to. What the names and values may hold
 * (RFC 9113 §8.2) is for the caller to judge: they come as they were sent, one character a byte.
 *
 * Bounded: a list that grows past its limit is read to its end for the table's sake, but no longer handed on;
 * a block of one-byte references to a large entry makes no copies.
 */
import { DEFAULT_TABLE_SIZE, DynamicTable, ENTRY_OVERHEAD } from './dynamic-table.ts'
import { huffmanDecode, huffmanRoom } from './huffman.ts'
import { compressionError, readInteger, type Cursor } from './integer.ts'
import { STATIC_ENTRIES, STATIC_NAMES, STATIC_VALUES } from './static-table.ts'

export interface DecoderOptions {
  /**
   * Largest dynamic table that the peer may use, bytes. Announcing less than 4096 to a peer takes effect when
   * it acknowledges: make the decoder with 4096 and call `setMaxTableSize` then. @default 4096
   */
  maxTableSize?: number
  /** Longest list handed on, bytes as RFC 9113 §6.5.2 counts: both lengths and 32 for each header. @default 16384 */
  maxHeaderListSize?: number
}

interface BlockCursor extends Cursor {
  readonly bytes: Buffer
}

/** Shared by every decoder of the thread; a longer string gets memory of its own, for as long as it is read. */
const scratch = Buffer.allocUnsafeSlow(16 * 1024)

export class HpackDecoder {
  readonly #table: DynamicTable
  readonly #maxHeaderListSize: number
  #maxTableSize: number
  /** The limit was lowered below the table in use: the next block must begin by shrinking it to this. */
  #demandedSize: number | undefined

  constructor(options: DecoderOptions = {}) {
    this.#maxTableSize = options.maxTableSize ?? DEFAULT_TABLE_SIZE
    this.#maxHeaderListSize = options.maxHeaderListSize ?? 16 * 1024
    this.#table = new DynamicTable(Math.min(this.#maxTableSize, DEFAULT_TABLE_SIZE))
  }

  /** Changes the largest table that the peer may use: call it when the peer has acknowledged the setting. */
  setMaxTableSize(bytes: number): void {
    this.#maxTableSize = bytes
    if (bytes < Math.min(this.#table.capacity, this.#demandedSize ?? Infinity)) this.#demandedSize = bytes
  }

  /**
   * Reads one whole block and hands each header to `emit`, in order. Reports whether the list was within its
   * limit: if not, what came after was not handed on, but the connection is sound. Throws `PROTOCOL`, after
   * which the table is not the peer's any more: the connection has to end with COMPRESSION_ERROR.
   */
  decode(block: Uint8Array, emit: (name: string, value: string) => void): boolean {
    const bytes = Buffer.isBuffer(block)
      ? block
      : Buffer.from(block.buffer, block.byteOffset, block.byteLength)
    const cursor: BlockCursor = { bytes, at: 0 }
    this.#readSizeUpdates(cursor)
    let room = this.#maxHeaderListSize
    while (cursor.at < bytes.length) {
      const first = bytes[cursor.at]!
      let name: string
      let value: string
      if (first >= 0x80) {
        const index = readInteger(cursor, 7)
        name = this.#nameAt(index)
        value =
          index <= STATIC_ENTRIES ? STATIC_VALUES[index]! : this.#table.value(index - STATIC_ENTRIES - 1)
      } else if (first >= 0x40) {
        name = this.#readName(cursor, 6)
        value = readString(cursor)
        this.#table.add(name, value)
      } else if (first >= 0x20) {
        throw compressionError('a table size update stands after a header')
      } else {
        // Without indexing and never indexed (§6.2.2, §6.2.3) differ only for who passes headers on.
        name = this.#readName(cursor, 4)
        value = readString(cursor)
      }
      room -= name.length + value.length + ENTRY_OVERHEAD
      if (room >= 0) emit(name, value)
    }
    return room >= 0
  }

  /** RFC 7541 §4.2, §6.3. */
  #readSizeUpdates(cursor: Cursor): void {
    const { bytes } = cursor
    while (cursor.at < bytes.length && bytes[cursor.at]! >> 5 === 0b001) {
      const size = readInteger(cursor, 5)
      if (size > this.#maxTableSize)
        throw compressionError(`a table size of ${size} is over the limit of ${this.#maxTableSize}`)
      if (this.#demandedSize !== undefined && size <= this.#demandedSize) this.#demandedSize = undefined
      this.#table.setCapacity(size)
    }
    if (this.#demandedSize !== undefined)
      throw compressionError(`it does not shrink the table to ${this.#demandedSize} as acknowledged`)
  }

  #readName(cursor: BlockCursor, prefixBits: number): string {
    const index = readInteger(cursor, prefixBits)
    return index === 0 ? readString(cursor) : this.#nameAt(index)
  }

  #nameAt(index: number): string {
    if (index === 0) throw compressionError('index 0 stands for nothing')
    if (index <= STATIC_ENTRIES) return STATIC_NAMES[index]!
    const position = index - STATIC_ENTRIES - 1
    if (position >= this.#table.count)
      throw compressionError(`index ${index} is past the table's last, ${STATIC_ENTRIES + this.#table.count}`)
    return this.#table.name(position)
  }
}

/** RFC 7541 §5.2. */
function readString(cursor: BlockCursor): string {
  const { bytes } = cursor
  const isHuffman = bytes[cursor.at]! >= 0x80
  const length = readInteger(cursor, 7)
  const start = cursor.at
  const end = start + length
  if (end > bytes.length) throw compressionError('it ends inside a string')
  cursor.at = end
  if (!isHuffman) return bytes.toString('latin1', start, end)
  const room = huffmanRoom(length)
  const out = room <= scratch.length ? scratch : Buffer.allocUnsafeSlow(room)
  return out.toString('latin1', 0, huffmanDecode(bytes, start, end, out))
}
