/**
 * Frames to bytes. Small frames are gathered in a slab and leave together when the events at hand have been served; a
 * large payload leaves at once, in one piece with its header where the caller has left room for that. The transport
 * takes bytes before it returns, so one slab serves for ever.
 */
import { FLAG, FRAME, FRAME_HEADER_BYTES } from './protocol.ts'
import type { Transport } from './transport.ts'

/** Holds a frame of the size that every peer takes (RFC 9113 §4.2), and its header. */
const SLAB_BYTES = 16 * 1024 + FRAME_HEADER_BYTES
/** Payloads up to this are copied into the slab; above, a record of their own costs less. */
const COPY_LIMIT = 4 * 1024

export class FrameWriter {
  readonly #transport: Transport
  /** Made when first needed: many sessions are silent for long. */
  #slab: Buffer = EMPTY
  #filled = 0
  #isScheduled = false
  #isClosed = false

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Bytes that the kernel has not taken yet. */
  get backlog(): number {
    return this.#filled + this.#transport.backlog
  }

  data(streamId: number, payload: Buffer, endStream: boolean): void {
    const flags = endStream ? FLAG.endStream : 0
    if (payload.length <= COPY_LIMIT) {
      const at = this.#frame(payload.length, FRAME.data, flags, streamId)
      payload.copy(this.#slab, at)
      return
    }
    this.#frame(0, FRAME.data, flags, streamId, payload.length)
    this.flush()
    if (!this.#isClosed) this.#transport.write(payload, payload.length)
  }

  /** A DATA frame whose payload of `length` bytes stands in `buffer` after room for the header. */
  dataInPlace(streamId: number, buffer: Buffer, length: number): void {
    if (length <= COPY_LIMIT) {
      const at = this.#frame(length, FRAME.data, 0, streamId)
      buffer.copy(this.#slab, at, FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length)
      return
    }
    this.flush()
    if (this.#isClosed) return
    writeHeader(buffer, 0, length, FRAME.data, 0, streamId)
    this.#transport.write(buffer, FRAME_HEADER_BYTES + length)
  }

  /** A header block, cut into HEADERS and CONTINUATION frames where the peer's limit asks for it. */
  headers(streamId: number, block: Uint8Array, endStream: boolean, maxFrame: number): void {
    const most = Math.min(maxFrame, SLAB_BYTES - FRAME_HEADER_BYTES)
    let at = 0
    let type: number = FRAME.headers
    let flags: number = endStream ? FLAG.endStream : 0
    do {
      const piece = block.subarray(at, at + most)
      at += piece.length
      if (at >= block.length) flags |= FLAG.endHeaders
      const to = this.#frame(piece.length, type, flags, streamId)
      this.#slab.set(piece, to)
      type = FRAME.continuation
      flags = 0
    } while (at < block.length)
  }

  rstStream(streamId: number, code: number): void {
    const at = this.#frame(4, FRAME.rstStream, 0, streamId)
    this.#slab.writeUInt32BE(code, at)
  }

  settings(pairs: readonly (readonly [id: number, value: number])[]): void {
    let at = this.#frame(pairs.length * 6, FRAME.settings, 0, 0)
    for (const [id, value] of pairs) {
      at = this.#slab.writeUInt16BE(id, at)
      at = this.#slab.writeUInt32BE(value, at)
    }
  }

  settingsAck(): void {
    this.#frame(0, FRAME.settings, FLAG.ack, 0)
  }

  ping(payload: Uint8Array, isAck: boolean): void {
    const at = this.#frame(payload.length, FRAME.ping, isAck ? FLAG.ack : 0, 0)
    this.#slab.set(payload, at)
  }

  goaway(lastStreamId: number, code: number, debug: string): void {
    const text = Buffer.from(debug, 'utf8').subarray(0, 256)
    const at = this.#frame(8 + text.length, FRAME.goaway, 0, 0)
    this.#slab.writeUInt32BE(lastStreamId, at)
    this.#slab.writeUInt32BE(code, at + 4)
    text.copy(this.#slab, at + 8)
  }

  windowUpdate(streamId: number, increment: number): void {
    const at = this.#frame(4, FRAME.windowUpdate, 0, streamId)
    this.#slab.writeUInt32BE(increment, at)
  }

  /** Bytes that are no frame: the client's preface. */
  raw(bytes: Buffer): void {
    const at = this.#place(bytes.length)
    bytes.copy(this.#slab, at)
  }

  /** Hands everything gathered to the transport now. */
  flush = (): void => {
    this.#isScheduled = false
    const filled = this.#filled
    this.#filled = 0
    if (filled > 0 && !this.#isClosed) this.#transport.write(this.#slab, filled)
  }

  /** Nothing is written any more. */
  close(): void {
    this.#isClosed = true
    this.#filled = 0
    this.#slab = EMPTY
  }

  /**
   * Room for a whole frame in the slab; its header is written, the payload's offset is given back. `announced`: the
   * payload follows outside of the slab. `#slab` may be another one afterwards: read it only after this call.
   */
  #frame(length: number, type: number, flags: number, streamId: number, announced = length): number {
    const at = this.#place(FRAME_HEADER_BYTES + length)
    writeHeader(this.#slab, at, announced, type, flags, streamId)
    return at + FRAME_HEADER_BYTES
  }

  #place(bytes: number): number {
    if (this.#filled + bytes > this.#slab.length) {
      this.flush()
      if (this.#slab.length === 0) this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
    }
    const at = this.#filled
    this.#filled += bytes
    if (!this.#isScheduled) {
      this.#isScheduled = true
      this.#transport.soon(this.flush)
    }
    return at
  }
}

function writeHeader(
  into: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  into[at] = length >>> 16
  into[at + 1] = length >>> 8
  into[at + 2] = length
  into[at + 3] = type
  into[at + 4] = flags
  into[at + 5] = streamId >>> 24
  into[at + 6] = streamId >>> 16
  into[at + 7] = streamId >>> 8
  into[at + 8] = streamId
}

const EMPTY = Buffer.alloc(0)
