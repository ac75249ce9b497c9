/**
 * Frames to bytes, gathered and handed to the transport once a tick: all frames that one event gives rise to
 * leave in one write. Small frames are laid one behind the other in a slab, so that a header and its payload are
 * one buffer (TLS would join them by copying anyway); large payloads are passed as they are.
 */
import type { Writable } from 'node:stream'
import { FLAG, FRAME, FRAME_HEADER_BYTES } from './protocol.ts'

const SLAB_BYTES = 64 * 1024
/** Payloads up to this are copied beside their header; above, a copy costs more than a second buffer. */
const COPY_LIMIT = 4 * 1024

export class FrameWriter {
  readonly #transport: Writable
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
  #from = 0
  #to = 0
  #parts: Buffer[] = []
  #waiting = 0
  #isScheduled = false
  #isClosed = false

  constructor(transport: Writable) {
    this.#transport = transport
  }

  /** Bytes that the kernel has not taken yet. */
  get backlog(): number {
    return this.#waiting + this.#transport.writableLength
  }

  data(streamId: number, payload: Buffer, endStream: boolean): void {
    const flags = endStream ? FLAG.endStream : 0
    if (payload.length <= COPY_LIMIT) {
      const at = this.#frame(payload.length, FRAME.data, flags, streamId)
      payload.copy(this.#slab, at)
      return
    }
    this.#header(payload.length, FRAME.data, flags, streamId)
    this.#cutSlab()
    this.#parts.push(payload)
    this.#waiting += payload.length
  }

  /** A header block, cut into HEADERS and CONTINUATION frames where the peer's limit asks for it. */
  headers(streamId: number, block: Uint8Array, endStream: boolean, maxFrame: number): void {
    let at = 0
    let type: number = FRAME.headers
    let flags: number = endStream ? FLAG.endStream : 0
    do {
      const piece = block.subarray(at, at + maxFrame)
      at += piece.length
      if (at >= block.length) flags |= FLAG.endHeaders
      this.#bytes(type, flags, streamId, piece)
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
    this.#bytes(FRAME.ping, isAck ? FLAG.ack : 0, 0, payload)
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
    this.#reserve(bytes.length)
    bytes.copy(this.#slab, this.#to)
    this.#to += bytes.length
    this.#waiting += bytes.length
    this.#schedule()
  }

  /** Hands everything gathered to the transport now. */
  flush = (): void => {
    this.#isScheduled = false
    this.#cutSlab()
    const parts = this.#parts
    if (parts.length === 0 || this.#isClosed) return
    this.#parts = []
    this.#waiting = 0
    if (!this.#transport.writable) return
    if (parts.length === 1) {
      this.#transport.write(parts[0]!)
      return
    }
    this.#transport.cork()
    for (const part of parts) this.#transport.write(part)
    this.#transport.uncork()
  }

  /** Nothing is written any more. */
  close(): void {
    this.#isClosed = true
    this.#parts = []
    this.#waiting = 0
  }

  #bytes(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    if (payload.length <= COPY_LIMIT) {
      const at = this.#frame(payload.length, type, flags, streamId)
      this.#slab.set(payload, at)
      return
    }
    this.#header(payload.length, type, flags, streamId)
    this.#cutSlab()
    this.#parts.push(Buffer.from(payload))
    this.#waiting += payload.length
  }

  /**
   * Room for a whole frame in the slab; its header is written, the payload's offset is given back. The slab may be
   * another one afterwards: read `#slab` only after this call.
   */
  #frame(length: number, type: number, flags: number, streamId: number): number {
    this.#reserve(FRAME_HEADER_BYTES + length)
    this.#header(length, type, flags, streamId)
    const at = this.#to
    this.#to += length
    this.#waiting += length
    return at
  }

  #header(length: number, type: number, flags: number, streamId: number): void {
    this.#reserve(FRAME_HEADER_BYTES)
    const slab = this.#slab
    const at = this.#to
    slab[at] = length >>> 16
    slab[at + 1] = length >>> 8
    slab[at + 2] = length
    slab[at + 3] = type
    slab[at + 4] = flags
    slab.writeUInt32BE(streamId, at + 5)
    this.#to += FRAME_HEADER_BYTES
    this.#waiting += FRAME_HEADER_BYTES
    this.#schedule()
  }

  #reserve(bytes: number): void {
    if (this.#slab.length - this.#to >= bytes) return
    this.#cutSlab()
    // The old slab may still be queued in the transport: it is left to the collector, never written again.
    this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes))
    this.#from = 0
    this.#to = 0
  }

  #cutSlab(): void {
    if (this.#to === this.#from) return
    this.#parts.push(this.#slab.subarray(this.#from, this.#to))
    this.#from = this.#to
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    process.nextTick(this.flush)
  }
}
