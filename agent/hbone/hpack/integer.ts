/**
 * HPACK integers (RFC 7541 §5.1): the low bits of a byte whose high bits say what follows, then seven bits a
 * byte. Reading is bounded in length and value, so that no peer can make it loop or overflow.
 */
import { CulvertError } from '../../../lib/errors.ts'

/** A place in a header block; reading moves `at` forward. */
export interface Cursor {
  readonly bytes: Uint8Array
  at: number
}

/**
 * Bytes that may follow the first: 28 bits of value. No index, length or table size of an honest peer comes
 * near it, and every sum stays a small integer.
 */
const MAX_CONTINUATION_BYTES = 4

/** Most bytes that `writeInteger` puts down for a number of up to 32 bits. */
export const MAX_INTEGER_BYTES = 6

/** A header block that breaks RFC 7541: a connection error of type COMPRESSION_ERROR (RFC 9113 §4.3). */
export function compressionError(message: string): CulvertError {
  return new CulvertError('PROTOCOL', `malformed header block: ${message}`)
}

/** Reads the integer in the low `prefixBits` of the byte at the cursor and the bytes after it. Throws `PROTOCOL`. */
export function readInteger(cursor: Cursor, prefixBits: number): number {
  const { bytes } = cursor
  const limit = (1 << prefixBits) - 1
  const first = bytes[cursor.at++]
  if (first === undefined) throw compressionError('it ends where an integer is due')
  let value = first & limit
  if (value < limit) return value
  for (let shift = 0; shift < MAX_CONTINUATION_BYTES * 7; shift += 7) {
    const byte = bytes[cursor.at++]
    if (byte === undefined) throw compressionError('it ends inside an integer')
    value += (byte & 0x7f) << shift
    if (byte < 0x80) return value
  }
  throw compressionError(`an integer is longer than ${MAX_CONTINUATION_BYTES + 1} bytes`)
}

/**
 * Writes `value` (0 to 2^32 - 1) at `at`, below the pattern bits `pattern` of its first byte. Gives the place
 * after it.
 */
export function writeInteger(
  out: Uint8Array,
  at: number,
  prefixBits: number,
  pattern: number,
  value: number,
): number {
  const limit = (1 << prefixBits) - 1
  if (value < limit) {
    out[at] = pattern | value
    return at + 1
  }
  out[at++] = pattern | limit
  let left = value - limit
  while (left >= 0x80) {
    out[at++] = (left & 0x7f) | 0x80
    left = Math.floor(left / 128) // not >>>: table sizes have 32 bits
  }
  out[at] = left
  return at + 1
}
