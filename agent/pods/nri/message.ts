/**
 * ttrpc messages: `length u32 | stream u32 | type u8 | flags u8`, big endian, then as many bytes as the length says. A
 * message that is too long is refused when its header is there; memory grows only with what has come.
 */
import { CulvertError } from '../../../lib/errors.ts'

export const REQUEST = 1
export const RESPONSE = 2

export interface Message {
  /** Pairs a response with its request; odd. */
  readonly stream: number
  readonly type: number
  readonly body: Uint8Array
}

const HEADER_BYTES = 10
const MAX_BODY_BYTES = 4 * 1024 * 1024
const FIRST_BODY_BYTES = 16 * 1024

/** Throws `INPUT` when the body is too long for a message. */
export function messageBytes({ stream, type, body }: Message): Buffer {
  if (body.length > MAX_BODY_BYTES)
    throw new CulvertError('INPUT', `NRI: a message of ${body.length} bytes is too long`)
  const bytes = Buffer.alloc(HEADER_BYTES + body.length)
  bytes.writeUInt32BE(body.length, 0)
  bytes.writeUInt32BE(stream, 4)
  bytes.writeUInt8(type, 8)
  bytes.set(body, HEADER_BYTES)
  return bytes
}

/** Puts the messages of one connection together. */
export class MessageReader {
  readonly #take: (message: Message) => void
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerBytes = 0
  #body = Buffer.alloc(0)
  #bodyBytes = 0
  #length = 0

  /** @param take gets each message; its body is its own */
  constructor(take: (message: Message) => void) {
    this.#take = take
  }

  /** Throws `PROTOCOL`, and whatever `take` throws; it is of no use after that. */
  push(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      at +=
        this.#headerBytes < HEADER_BYTES
          ? this.#takeHeader(bytes.subarray(at))
          : this.#takeBody(bytes.subarray(at))
      if (this.#headerBytes === HEADER_BYTES && this.#bodyBytes === this.#length) this.#finish()
    }
  }

  #takeHeader(bytes: Buffer): number {
    const copied = bytes.copy(this.#header, this.#headerBytes)
    this.#headerBytes += copied
    if (this.#headerBytes < HEADER_BYTES) return copied
    this.#length = this.#header.readUInt32BE(0)
    if (this.#length > MAX_BODY_BYTES)
      throw new CulvertError(
        'PROTOCOL',
        `NRI: a message of ${this.#length} bytes, more than ${MAX_BODY_BYTES} are not allowed`,
      )
    this.#body = Buffer.allocUnsafeSlow(Math.min(this.#length, FIRST_BODY_BYTES))
    this.#bodyBytes = 0
    return copied
  }

  #takeBody(bytes: Buffer): number {
    const part = bytes.subarray(0, this.#length - this.#bodyBytes)
    const needed = this.#bodyBytes + part.length
    if (needed > this.#body.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(this.#length, Math.max(needed, this.#body.length * 2)))
      this.#body.copy(larger, 0, 0, this.#bodyBytes)
      this.#body = larger
    }
    part.copy(this.#body, this.#bodyBytes)
    this.#bodyBytes = needed
    return part.length
  }

  #finish(): void {
    const message: Message = {
      stream: this.#header.readUInt32BE(4),
      type: this.#header.readUInt8(8),
      body: this.#body.subarray(0, this.#length),
    }
    this.#headerBytes = 0
    this.#bodyBytes = 0
    this.#length = 0
    this.#body = Buffer.alloc(0)
    this.#take(message)
  }
}
