/**
 * NRI's multiplexing: two connections on one Unix socket. A frame is `connection u32 | length u32 | bytes`, big endian; it may
 * end anywhere in what the connection carries. Nothing is kept here but a header that is not complete.
 */
import { CulvertError } from '../../../lib/errors.ts'

/** Here the runtime calls us. */
export const PLUGIN_CONNECTION = 1
/** Here we call the runtime. */
export const RUNTIME_CONNECTION = 2

const HEADER_BYTES = 8
/** A ttrpc message of the largest size with its header. */
const MAX_FRAME_BYTES = 4 * 1024 * 1024 + 10

/** The frames that carry `bytes`. */
export function framesOf(connection: number, bytes: Uint8Array): Buffer[] {
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; at += MAX_FRAME_BYTES) {
    const part = bytes.subarray(at, at + MAX_FRAME_BYTES)
    const frame = Buffer.allocUnsafe(HEADER_BYTES + part.length)
    frame.writeUInt32BE(connection, 0)
    frame.writeUInt32BE(part.length, 4)
    frame.set(part, HEADER_BYTES)
    frames.push(frame)
  }
  return frames
}

/** Tells the bytes of each connection apart. */
export class Demultiplexer {
  readonly #take: (connection: number, bytes: Buffer) => void
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerBytes = 0
  #connection = 0
  #left = 0

  /** @param take gets what belongs to a connection, in order, in pieces of any size; they are views into what was pushed */
  constructor(take: (connection: number, bytes: Buffer) => void) {
    this.#take = take
  }

  /** Takes what was read from the socket. Throws `PROTOCOL`, and whatever `take` throws; it is of no use after that. */
  push(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#left > 0) {
        const part = bytes.subarray(at, at + this.#left)
        at += part.length
        this.#left -= part.length
        this.#take(this.#connection, part)
        continue
      }
      const copied = bytes.copy(this.#header, this.#headerBytes, at)
      at += copied
      this.#headerBytes += copied
      if (this.#headerBytes < HEADER_BYTES) return
      this.#headerBytes = 0
      this.#connection = this.#header.readUInt32BE(0)
      this.#left = this.#header.readUInt32BE(4)
      if (this.#left > MAX_FRAME_BYTES)
        throw new CulvertError(
          'PROTOCOL',
          `NRI: a frame of ${this.#left} bytes, more than ${MAX_FRAME_BYTES} are not allowed`,
        )
    }
  }
}
