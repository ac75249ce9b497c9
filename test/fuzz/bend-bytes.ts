/** Damage to bytes whatever they mean. */
import type { Random } from './random.ts'

/** More is a flood, and floods have tests of their own. */
export const MAX_BYTES = 1_000_000

type Bend = (bytes: Buffer, random: Random, other: Buffer) => Buffer

const EDGES = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff]

const flipBit: Bend = (bytes, random) => {
  const at = random.int(bytes.length)
  bytes[at] = bytes[at]! ^ (1 << random.int(8))
  return bytes
}

const setByte: Bend = (bytes, random) => {
  bytes[random.int(bytes.length)] = random.once(2) ? random.pick(EDGES) : random.int(256)
  return bytes
}

const setWord: Bend = (bytes, random) => {
  if (bytes.length < 4) return bytes
  const value = random.pick([0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, random.uint32()])
  bytes.writeUInt32BE(value, random.int(bytes.length - 3))
  return bytes
}

const insert: Bend = (bytes, random) => {
  const at = random.int(bytes.length + 1)
  const more = random.once(2)
    ? random.bytes(random.size(300))
    : Buffer.alloc(random.size(300), random.pick(EDGES))
  return Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)])
}

const cutOut: Bend = (bytes, random) => {
  const at = random.int(bytes.length)
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.size(300))])
}

const cutOff: Bend = (bytes, random) => bytes.subarray(0, random.int(bytes.length))

const sayTwice: Bend = (bytes, random) => {
  const at = random.int(bytes.length)
  const end = Math.min(bytes.length, at + 1 + random.size(5000))
  const piece = bytes.subarray(at, end)
  const times = random.once(4) ? random.between(2, 40) : 1
  return Buffer.concat([
    bytes.subarray(0, end),
    ...Array.from({ length: times }, () => piece),
    bytes.subarray(end),
  ])
}

/** The beginning of this and the end of another. */
const splice: Bend = (bytes, random, other) =>
  Buffer.concat([bytes.subarray(0, random.int(bytes.length)), other.subarray(random.int(other.length))])

const BENDS: readonly (readonly [number, Bend])[] = [
  [6, flipBit],
  [5, setByte],
  [3, setWord],
  [3, insert],
  [3, cutOut],
  [1, cutOff],
  [2, sayTwice],
  [2, splice],
]

/** A few damages, one after the other; `other` is what pieces are taken from. The buffers given stay as they are. */
export function bendBytes(bytes: Buffer, random: Random, other: Buffer): Buffer {
  let bent: Buffer = Buffer.from(bytes)
  for (let left = random.once(3) ? random.between(2, 8) : 1; left > 0 && bent.length > 0; left--)
    bent = random.weighted(BENDS)(bent, random, other).subarray(0, MAX_BYTES)
  return bent
}

/** Cut as a network may cut them: in one, in a few, or in many small pieces. */
export function cutUp(bytes: Buffer, random: Random): Buffer[] {
  const pieces: Buffer[] = []
  const most = random.weighted([
    [4, bytes.length],
    [3, 16_384],
    [2, 1000],
    [1, Math.max(1, Math.ceil(bytes.length / 100))],
  ])
  for (let at = 0; at < bytes.length;) {
    const size = Math.max(random.between(1, Math.max(1, most)), Math.ceil(bytes.length / 400))
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}
