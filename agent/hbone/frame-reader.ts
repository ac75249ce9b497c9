/**
 * Bytes to frames. DATA is passed on piece by piece as it arrives, without waiting for the frame to be whole and
 * without a copy: whoever keeps a piece copies it. All other frames are short, and are collected, but for those of
 * unknown type: nothing is kept of them. Violations throw `SessionError`. What a frame makes the sink do may end the
 * session: `stop` keeps the rest of the chunk from being read.
 */
import { CODE, FLAG, FRAME, FRAME_HEADER_BYTES, PRIORITY_BYTES, SessionError } from './protocol.ts'
import { MAX_CONTINUATIONS, MAX_CONTROL_PAYLOAD, MAX_HEADER_BLOCK } from './limits.ts'

export interface FrameSink {
  /** A DATA frame begins; `length` is what flow control counts (RFC 9113 §6.9.1: padding too). */
  dataBegin(streamId: number, length: number): void
  /** A piece of it, to be copied if it is kept. */
  data(streamId: number, piece: Buffer): void
  /** It is whole; `padding` bytes of its length were not data. */
  dataEnd(streamId: number, endStream: boolean, padding: number): void
  headers(streamId: number, block: Buffer, endStream: boolean): void
  rstStream(streamId: number, code: number): void
  settings(isAck: boolean, payload: Buffer): void
  pingFrame(isAck: boolean, payload: Buffer): void
  goawayFrame(lastStreamId: number, code: number, debug: Buffer): void
  windowUpdate(streamId: number, increment: number): void
  /**
   * PRIORITY and frames of unknown type: nothing to do but count them (RFC 9113 §5.5, §5.3.2), unless it is a PRIORITY
   * whose `length` is not 5 (§6.3).
   */
  ignored(type: number, streamId: number, length: number): void
}

export interface FrameReaderOptions {
  /** The first frame has to be SETTINGS, and no acknowledgement of any (RFC 9113 §3.4). @default false */
  readonly beginsWithSettings?: boolean
}

export class FrameReader {
  readonly #sink: FrameSink
  readonly #maxFrame: number
  readonly #head = Buffer.alloc(FRAME_HEADER_BYTES)
  #headFilled = 0
  #length = 0
  #type = 0
  #flags = 0
  #streamId = 0
  /** Bytes of the present frame's payload still to come; -1 between frames. */
  #left = -1
  /** DATA: pad bytes announced; -1 until the pad length was read. */
  #padding = 0
  #dataLeft = 0
  /** The present frame's payload as far as it has come, when it did not come at once. */
  #payload: Buffer = EMPTY
  #payloadAt = 0
  #block: Buffer[] = []
  #blockBytes = 0
  #blockFrames = 0
  #blockStream = 0
  #blockEndStream = false
  #wantsSettings: boolean
  #isStopped = false

  constructor(sink: FrameSink, maxFrame: number, { beginsWithSettings = false }: FrameReaderOptions = {}) {
    this.#sink = sink
    this.#maxFrame = maxFrame
    this.#wantsSettings = beginsWithSettings
  }

  /** Nothing more is read, not even of the chunk that is being read now. */
  stop(): void {
    this.#isStopped = true
  }

  /** Takes the next bytes of the connection, the first `length` of the chunk. Throws `SessionError`; the reader is of no use after that. */
  push(chunk: Buffer, length = chunk.length): void {
    let at = 0
    while (at < length && !this.#isStopped) {
      if (this.#left < 0) {
        if (this.#headFilled === 0 && length - at >= FRAME_HEADER_BYTES) {
          this.#begin(chunk, at)
          at += FRAME_HEADER_BYTES
        } else {
          const take = Math.min(FRAME_HEADER_BYTES - this.#headFilled, length - at)
          chunk.copy(this.#head, this.#headFilled, at, at + take)
          this.#headFilled += take
          at += take
          if (this.#headFilled < FRAME_HEADER_BYTES) return
          this.#headFilled = 0
          this.#begin(this.#head, 0)
        }
        if (this.#left > 0) continue
      }
      const take = Math.min(this.#left, length - at)
      if (take > 0 || this.#left === 0) {
        const piece = chunk.subarray(at, at + take)
        at += take
        this.#left -= take
        if (this.#type === FRAME.data) this.#dataPiece(piece)
        else if (this.#type <= FRAME.continuation) this.#collect(piece)
        if (this.#left === 0) this.#finish()
      }
    }
  }

  #begin(from: Buffer, at: number): void {
    this.#length = from.readUIntBE(at, 3)
    this.#type = from[at + 3]!
    this.#flags = from[at + 4]!
    this.#streamId = from.readUInt32BE(at + 5) & 0x7fff_ffff
    this.#left = this.#length
    if (this.#length > this.#maxFrame)
      throw new SessionError(
        CODE.frameSizeError,
        `frame of ${this.#length} bytes, at most ${this.#maxFrame} allowed`,
        { limit: 'maxFrame' },
      )
    if (this.#wantsSettings) this.#first()
    if (
      this.#blockStream !== 0 &&
      (this.#type !== FRAME.continuation || this.#streamId !== this.#blockStream)
    )
      throw new SessionError(CODE.protocolError, 'another frame inside a header block')
    if (this.#type === FRAME.data) {
      if (this.#streamId === 0) throw new SessionError(CODE.protocolError, 'DATA on stream 0')
      const isPadded = (this.#flags & FLAG.padded) !== 0
      if (isPadded && this.#length === 0)
        throw new SessionError(CODE.frameSizeError, 'padded DATA without a pad length')
      this.#padding = isPadded ? -1 : 0
      this.#dataLeft = this.#length
      this.#sink.dataBegin(this.#streamId, this.#length)
    } else if (
      this.#type <= FRAME.continuation &&
      this.#length > MAX_CONTROL_PAYLOAD &&
      !this.#carriesHeaders()
    ) {
      throw new SessionError(CODE.frameSizeError, `control frame of ${this.#length} bytes`, {
        limit: 'MAX_CONTROL_PAYLOAD',
      })
    } else if (this.#carriesHeaders() && this.#length > MAX_HEADER_BLOCK) {
      throw new SessionError(CODE.enhanceYourCalm, `header block of ${this.#length} bytes`, {
        limit: 'MAX_HEADER_BLOCK',
      })
    }
    if (this.#left === 0) this.#finish()
  }

  #first(): void {
    this.#wantsSettings = false
    const isSettings = this.#type === FRAME.settings && (this.#flags & FLAG.ack) === 0
    this.#require(isSettings, 'the first frame was not SETTINGS')
  }

  /**
   * A frame that comes byte by byte must not cost a buffer for each: the pieces are copied into one, which grows
   * with what has come and not with what was announced.
   */
  #collect(piece: Buffer): void {
    if (this.#payloadAt === 0 && this.#left === 0) {
      this.#payload = piece
      this.#payloadAt = piece.length
      return
    }
    const end = this.#payloadAt + piece.length
    if (end > this.#payload.length) {
      const grown = Buffer.allocUnsafeSlow(
        Math.min(this.#length, Math.max(end, this.#payload.length * 2, 256)),
      )
      this.#payload.copy(grown, 0, 0, this.#payloadAt)
      this.#payload = grown
    }
    piece.copy(this.#payload, this.#payloadAt)
    this.#payloadAt = end
  }

  #carriesHeaders(): boolean {
    return this.#type === FRAME.headers || this.#type === FRAME.continuation
  }

  #dataPiece(piece: Buffer): void {
    let from = piece
    if (this.#padding < 0 && from.length > 0) {
      this.#padding = from[0]!
      if (this.#padding >= this.#length)
        throw new SessionError(CODE.protocolError, 'DATA padding longer than the frame')
      this.#dataLeft = this.#length - 1 - this.#padding
      from = from.subarray(1)
    }
    const take = Math.min(this.#dataLeft, from.length)
    if (take > 0) {
      this.#dataLeft -= take
      this.#sink.data(this.#streamId, take === from.length ? from : from.subarray(0, take))
    }
  }

  #finish(): void {
    this.#left = -1
    const type = this.#type
    if (type === FRAME.data) {
      const isPadded = (this.#flags & FLAG.padded) !== 0
      this.#sink.dataEnd(
        this.#streamId,
        (this.#flags & FLAG.endStream) !== 0,
        isPadded ? this.#padding + 1 : 0,
      )
      return
    }
    const payload = this.#payload.subarray(0, this.#payloadAt)
    this.#payload = EMPTY
    this.#payloadAt = 0
    this.#control(type, payload)
  }

  #control(type: number, payload: Buffer): void {
    const streamId = this.#streamId
    switch (type) {
      case FRAME.headers:
        return this.#headersFrame(payload)
      case FRAME.continuation:
        return this.#continuation(payload)
      case FRAME.rstStream:
        this.#require(streamId !== 0, 'RST_STREAM on stream 0')
        this.#requireLength(payload.length === 4, 'RST_STREAM')
        return this.#sink.rstStream(streamId, payload.readUInt32BE(0))
      case FRAME.settings:
        this.#require(streamId === 0, 'SETTINGS on a stream')
        this.#requireLength(payload.length % 6 === 0, 'SETTINGS')
        this.#requireLength(
          (this.#flags & FLAG.ack) === 0 || payload.length === 0,
          'SETTINGS acknowledgement',
        )
        return this.#sink.settings((this.#flags & FLAG.ack) !== 0, payload)
      case FRAME.ping:
        this.#require(streamId === 0, 'PING on a stream')
        this.#requireLength(payload.length === 8, 'PING')
        return this.#sink.pingFrame((this.#flags & FLAG.ack) !== 0, payload)
      case FRAME.goaway:
        this.#require(streamId === 0, 'GOAWAY on a stream')
        this.#requireLength(payload.length >= 8, 'GOAWAY')
        return this.#sink.goawayFrame(
          payload.readUInt32BE(0) & 0x7fff_ffff,
          payload.readUInt32BE(4),
          payload.subarray(8),
        )
      case FRAME.windowUpdate:
        this.#requireLength(payload.length === 4, 'WINDOW_UPDATE')
        return this.#sink.windowUpdate(streamId, payload.readUInt32BE(0) & 0x7fff_ffff)
      case FRAME.pushPromise:
        throw new SessionError(CODE.protocolError, 'PUSH_PROMISE, though push is off')
      case FRAME.priority:
        this.#require(streamId !== 0, 'PRIORITY on stream 0')
        return this.#sink.ignored(type, streamId, this.#length)
      default:
        return this.#sink.ignored(type, streamId, this.#length)
    }
  }

  #headersFrame(payload: Buffer): void {
    this.#require(this.#streamId !== 0, 'HEADERS on stream 0')
    const isPadded = (this.#flags & FLAG.padded) !== 0
    const from = (isPadded ? 1 : 0) + ((this.#flags & FLAG.priority) !== 0 ? PRIORITY_BYTES : 0)
    this.#requireLength(payload.length >= from, 'padded or prioritized HEADERS')
    const to = payload.length - (isPadded ? payload[0]! : 0)
    this.#require(to >= from, 'HEADERS padding longer than the frame')
    this.#blockStream = this.#streamId
    this.#blockEndStream = (this.#flags & FLAG.endStream) !== 0
    this.#blockFrames = 0
    this.#blockBytes = 0
    this.#block = []
    this.#blockPiece(payload.subarray(from, to))
  }

  #continuation(payload: Buffer): void {
    this.#require(this.#blockStream !== 0, 'CONTINUATION without HEADERS')
    this.#blockPiece(payload)
  }

  #blockPiece(piece: Buffer): void {
    const isLast = (this.#flags & FLAG.endHeaders) !== 0
    this.#block.push(isLast ? piece : Buffer.from(piece))
    this.#blockBytes += piece.length
    this.#blockFrames++
    if (this.#blockBytes > MAX_HEADER_BLOCK || this.#blockFrames > MAX_CONTINUATIONS)
      throw new SessionError(
        CODE.enhanceYourCalm,
        `header block of ${this.#blockBytes} bytes in ${this.#blockFrames} frames`,
        { limit: this.#blockBytes > MAX_HEADER_BLOCK ? 'MAX_HEADER_BLOCK' : 'MAX_CONTINUATIONS' },
      )
    if (!isLast) return
    const block = this.#block.length === 1 ? this.#block[0]! : Buffer.concat(this.#block)
    const streamId = this.#blockStream
    this.#blockStream = 0
    this.#block = []
    this.#sink.headers(streamId, block, this.#blockEndStream)
  }

  #require(condition: boolean, what: string): void {
    if (!condition) throw new SessionError(CODE.protocolError, what)
  }

  #requireLength(condition: boolean, what: string): void {
    if (!condition) throw new SessionError(CODE.frameSizeError, `${what} frame of ${this.#length} bytes`)
  }
}

const EMPTY = Buffer.alloc(0)
