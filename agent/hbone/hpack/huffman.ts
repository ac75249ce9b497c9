/**
 * Reading HPACK's Huffman code (RFC 7541 §5.2, Appendix B) four bits a step. The code is canonical, so the
 * lengths of its words are all there is to know of it: the tree is built from them, and from the tree a table
 * that gives, for a place in the tree and the next four bits, the next place and the character passed on the
 * way. No word is shorter than five bits: a step passes one character at most.
 *
 * There is no Huffman encoder: it would save about 25 of the 100 bytes of a tunnel's request, which travel in a
 * TLS record of their own either way, and take time on every connection.
 */
import { compressionError } from './integer.ts'

/** Bits of the code word of each byte value, then of the end-of-string symbol (RFC 7541 Appendix B). */
// prettier-ignore
export const CODE_LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
]

const END_OF_STRING = 256

/** A step of the table: the next place in bits 0–7, the character in bits 8–15, and these. */
const PASSED_CHARACTER = 1 << 16
const PASSED_END = 1 << 17

const { steps: STEPS, isEnd: IS_END } = buildTable()

/** The most characters that `bytes` bytes can hold: the shortest word has five bits. */
export function huffmanRoom(bytes: number): number {
  return Math.ceil((bytes * 8) / 5)
}

/**
 * Writes the characters of the Huffman string in `bytes` from `start` to `end` into `out`, which has
 * `huffmanRoom` for them, and gives their number. Throws `PROTOCOL` when the padding is not the beginning of
 * the end-of-string word, is longer than seven bits, or the string holds that word (RFC 7541 §5.2).
 */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number, out: Uint8Array): number {
  let place = 0
  let length = 0
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!
    let step = STEPS[(place << 4) | (byte >> 4)]!
    if (step >= PASSED_CHARACTER) {
      if (step >= PASSED_END) throw compressionError('a Huffman string holds the end-of-string symbol')
      out[length++] = step >> 8
    }
    step = STEPS[((step & 0xff) << 4) | (byte & 0xf)]!
    if (step >= PASSED_CHARACTER) {
      if (step >= PASSED_END) throw compressionError('a Huffman string holds the end-of-string symbol')
      out[length++] = step >> 8
    }
    place = step & 0xff
  }
  if (IS_END[place] !== 1) throw compressionError('a Huffman string ends in wrong padding')
  return length
}

/** The tree: each inner node's two children, an inner node's number or, below zero, `~symbol` of a leaf. */
function buildTree(): [number, number][] {
  const nodes: [number, number][] = [[0, 0]]
  const symbols = [...CODE_LENGTHS.keys()].sort((a, b) => CODE_LENGTHS[a]! - CODE_LENGTHS[b]! || a - b)
  let word = 0
  let bits = CODE_LENGTHS[symbols[0]!]!
  for (const symbol of symbols) {
    word *= 2 ** (CODE_LENGTHS[symbol]! - bits)
    bits = CODE_LENGTHS[symbol]!
    let node = 0
    for (let at = bits - 1; at > 0; at--) {
      const side = (word >>> at) & 1
      if (nodes[node]![side] === 0) nodes[node]![side] = nodes.push([0, 0]) - 1
      node = nodes[node]![side]!
    }
    nodes[node]![word & 1] = ~symbol
    word++
  }
  return nodes
}

function buildTable(): { steps: Uint32Array; isEnd: Uint8Array } {
  const nodes = buildTree()
  const steps = new Uint32Array(nodes.length * 16)
  for (let index = 0; index < steps.length; index++) {
    let place = index >> 4
    let passed = 0
    for (let bit = 3; bit >= 0; bit--) {
      place = nodes[place]![(index >> bit) & 1]!
      if (place >= 0) continue
      passed |= ~place === END_OF_STRING ? PASSED_END : PASSED_CHARACTER | (~place << 8)
      place = 0
    }
    steps[index] = place | passed
  }
  // A string may end after a whole character, or after up to seven ones.
  const isEnd = new Uint8Array(nodes.length)
  for (let place = 0, ones = 0; ones <= 7; ones++) {
    isEnd[place] = 1
    place = nodes[place]![1]
  }
  return { steps, isEnd }
}
