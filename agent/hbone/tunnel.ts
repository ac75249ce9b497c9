/**
 * One HTTP/2 stream that carries one TCP connection. Not a `stream.Duplex`: the relay at either end is our own,
 * and a Duplex would cost more than the bytes do. Rules:
 * - `write()` always takes the bytes; false asks the caller to pause until `drain`.
 * - received bytes count against the window until `consumed()` says that the application has taken them.
 * - exactly one of "ended both ways" or `reset` happens, then `closed` once.
 */
import { Gathered, SMALL_PIECE } from './gathered.ts'
import { BULK_BYTES } from './limits.ts'
import { CODE, MAX_WINDOW, SessionError, StreamResetError, codeName } from './protocol.ts'

export interface TunnelHandlers {
  /** Bytes from the peer, to be copied if they are kept. */
  data(chunk: Buffer): void
  /** The peer sends no more (END_STREAM): the FIN of the far application. */
  end(): void
  /** The stream is over, and not in order. Nothing follows but `closed`. */
  reset(error: StreamResetError): void
  /** What was written has left; more may come. */
  drain(): void
  /** The stream is over, however it ended. Nothing follows. */
  closed?(): void
}

/** What a tunnel needs of its session. */
export interface TunnelCarrier {
  sendData(tunnel: Tunnel, payload: Buffer, endStream: boolean): void
  /** The same without a copy: the payload stands in `buffer` from `FRAME_HEADER_BYTES` on. */
  sendInPlace(tunnel: Tunnel, buffer: Buffer, length: number): void
  sendReset(streamId: number, code: number): void
  sendWindowUpdate(streamId: number, increment: number): void
  /** Bytes that may be sent now on any stream, as connection window and transport backlog allow. */
  room(): number
  /** The tunnel has bytes that it may not send: call `pump()` when there is room again. */
  waitForRoom(tunnel: Tunnel): void
  /** The application has taken bytes that were counted against the connection's window. */
  credit(bytes: number): void
  ended(tunnel: Tunnel): void
  /** One stream has carried much lately. */
  bulk(): void
}

export class Tunnel {
  readonly id: number
  sendWindow: number
  /** Largest DATA payload, as the peer and our own limit allow. */
  maxPayload: number
  #receiveWindow: number
  readonly #windowSize: number
  readonly #carrier: TunnelCarrier
  #handlers: TunnelHandlers | undefined
  /** Received before anyone listened, or in small pieces while the application is slow to take what it has. */
  #gathered: Gathered | undefined
  #earlyEnd = false
  /** Bytes handed to the application and not yet consumed, and the pieces they came in since there were none. */
  #untaken = 0
  #untakenPieces = 0
  #pending: Buffer[] = []
  #pendingAt = 0
  #wantsEnd = false
  #unreported = 0
  #carried = 0
  /** Received and not yet consumed: given back to the connection's window when the stream dies. */
  #held = 0
  #sentEnd = false
  #gotEnd = false
  #error: StreamResetError | undefined
  #isClosed = false
  #needsDrain = false
  #onClosed: readonly (() => void)[] = NONE

  constructor(
    id: number,
    carrier: TunnelCarrier,
    windows: { send: number; receive: number; maxPayload: number },
  ) {
    this.id = id
    this.#carrier = carrier
    this.sendWindow = windows.send
    this.maxPayload = windows.maxPayload
    this.#receiveWindow = windows.receive
    this.#windowSize = windows.receive
  }

  /** Why the stream was reset, if it was. */
  get error(): StreamResetError | undefined {
    return this.#error
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Bytes accepted by `write()` that wait for a window. */
  get pendingBytes(): number {
    let bytes = -this.#pendingAt
    for (const chunk of this.#pending) bytes += chunk.length
    return Math.max(0, bytes)
  }

  /** Calls back once when the stream is over, however it ended; at once when it already is. */
  onClosed(callback: () => void): void {
    if (this.#isClosed) callback()
    else this.#onClosed = [...this.#onClosed, callback] // most have one at most
  }

  /** The callback is not wanted any more. */
  offClosed(callback: () => void): void {
    this.#onClosed = this.#onClosed.filter(each => each !== callback)
  }

  /** Starts delivery. What came earlier is delivered now. */
  attach(handlers: TunnelHandlers): void {
    this.#handlers = handlers
    this.#deliverGathered()
    if (this.#earlyEnd) {
      this.#earlyEnd = false
      handlers.end()
    }
    if (this.#error) handlers.reset(this.#error)
    if (this.#isClosed) handlers.closed?.()
  }

  /** Bytes that may be sent now; 0 when some wait already, or nothing may be sent any more. */
  get room(): number {
    if (this.#isClosed || this.#wantsEnd || this.#pending.length > 0) return 0
    return Math.max(0, Math.min(this.sendWindow, this.maxPayload, this.#carrier.room()))
  }

  /** Asks for `drain` when there is room. */
  waitForRoom(): void {
    if (this.#isClosed || this.#wantsEnd) return
    this.#needsDrain = true
    this.#carrier.waitForRoom(this)
  }

  /**
   * Sends the bytes from `FRAME_HEADER_BYTES` on, at most as many as there is `room` for; what stands before them is
   * overwritten with the frame's header, so that both leave as one. The buffer may be reused at once.
   */
  sendInPlace(buffer: Buffer, length: number): void {
    this.sendWindow -= length
    this.#carry(length)
    this.#carrier.sendInPlace(this, buffer, length)
  }

  #carry(bytes: number): void {
    this.#carried += bytes
    if (this.#carried < BULK_BYTES) return
    this.#carried = 0
    this.#carrier.bulk()
  }

  /** Sends bytes, which must not change until they have left. False: pause until `drain`. Ignored after `end()` or a reset. */
  write(chunk: Buffer): boolean {
    if (this.#isClosed || this.#wantsEnd || chunk.length === 0) return true
    if (this.#pending.length === 0 && chunk.length <= this.maxPayload) {
      // The common case: everything fits and leaves at once.
      if (chunk.length <= this.sendWindow && chunk.length <= this.#carrier.room()) {
        this.sendWindow -= chunk.length
        this.#carrier.sendData(this, chunk, false)
        return true
      }
    }
    this.#pending.push(chunk)
    this.pump()
    if (this.#pending.length === 0) return true
    this.#needsDrain = true
    return false
  }

  /** Ends this side in order, after what was written. */
  end(): void {
    if (this.#isClosed || this.#wantsEnd) return
    this.#wantsEnd = true
    this.pump()
  }

  /**
   * The answer's HEADERS ended this side (a refusal). If the peer's side is still open it is told that nothing more
   * is wanted: RST_STREAM(NO_ERROR), RFC 9113 §8.1.
   */
  endedByHeaders(): void {
    if (this.#isClosed) return
    this.#wantsEnd = true
    this.#sentEnd = true
    this.#discard()
    if (this.#gotEnd) return this.#close()
    this.#carrier.sendReset(this.id, CODE.noError)
    this.#gotEnd = true
    this.#close()
  }

  /** Ends the stream out of order, both ways. CONNECT_ERROR stands for a TCP reset (RFC 9113 §8.5). */
  reset(code: number = CODE.connectError): void {
    if (this.#isClosed) return
    this.#carrier.sendReset(this.id, code)
    this.#fail(new StreamResetError(code, `stream reset here: ${codeName(code)}`, { byPeer: false }))
  }

  /** The application has taken this many bytes: the peer may send as many more. */
  consumed(bytes: number): void {
    this.#untaken = Math.max(0, this.#untaken - bytes)
    if (this.#untaken === 0) this.#untakenPieces = 0
    this.passedOver(bytes)
    if (this.#gathered && this.#handlers) this.#deliverGathered()
  }

  /** Bytes that count against the windows and are for no application: padding. */
  passedOver(bytes: number): void {
    if (bytes === 0) return
    const counted = Math.min(bytes, this.#held)
    this.#held -= counted
    this.#carrier.credit(counted)
    if (this.#gotEnd || this.#isClosed) return
    this.#unreported += bytes
    if (this.#unreported < this.#windowSize / 2) return
    this.#carrier.sendWindowUpdate(this.id, this.#unreported)
    this.#receiveWindow += this.#unreported
    this.#unreported = 0
  }

  /** Sends what is pending as far as windows and transport allow. Called by the session when there is room again. */
  pump(): void {
    if (this.#isClosed) return
    while (this.#pending.length > 0) {
      const room = Math.min(this.sendWindow, this.maxPayload, this.#carrier.room())
      if (room <= 0) {
        this.#carrier.waitForRoom(this)
        return
      }
      const first = this.#pending[0]!
      const left = first.length - this.#pendingAt
      const take = Math.min(left, room)
      const isWhole = take === first.length
      const piece = isWhole ? first : first.subarray(this.#pendingAt, this.#pendingAt + take)
      if (take === left) {
        this.#pending.shift()
        this.#pendingAt = 0
      } else this.#pendingAt += take
      this.sendWindow -= take
      const isLast = this.#wantsEnd && this.#pending.length === 0
      if (isLast) this.#sentEnd = true
      this.#carrier.sendData(this, piece, isLast)
    }
    if (this.#wantsEnd && !this.#sentEnd) {
      this.#sentEnd = true
      this.#carrier.sendData(this, EMPTY, true)
    }
    if (this.#sentEnd) {
      this.#closeIfDone()
    } else if (this.#needsDrain) {
      if (this.room === 0) return this.#carrier.waitForRoom(this)
      this.#needsDrain = false
      this.#handlers?.drain()
    }
  }

  // === what the session calls when frames arrive ===

  /** A DATA frame begins. Throws when the peer overran the stream's window; false when nothing may come any more. */
  receiveBegin(length: number): boolean {
    if (this.#gotEnd) return false
    this.#receiveWindow -= length
    if (this.#receiveWindow < 0)
      throw new SessionError(CODE.flowControlError, `stream ${this.id} overran its window`, {
        limit: 'streamWindow',
      })
    this.#held += length
    this.#carry(length)
    return true
  }

  receiveData(piece: Buffer): void {
    if (this.#isClosed) return
    const isSlow = this.#untakenPieces >= SLOW_FROM && piece.length < SMALL_PIECE
    if (!this.#handlers || isSlow) {
      this.#gathered ??= new Gathered()
      this.#gathered.push(piece) // `attach` or the next `consumed` hands it on
      return
    }
    if (this.#gathered) this.#deliverGathered()
    this.#deliver(piece)
  }

  #deliver(piece: Buffer): void {
    this.#untaken += piece.length
    this.#untakenPieces++
    this.#handlers?.data(piece)
  }

  #deliverGathered(): void {
    const gathered = this.#gathered
    this.#gathered = undefined
    for (const piece of gathered?.take() ?? []) this.#deliver(piece)
  }

  receiveEnd(): void {
    if (this.#gotEnd || this.#isClosed) return
    this.#gotEnd = true
    if (this.#handlers) {
      this.#deliverGathered()
      this.#handlers.end()
    } else this.#earlyEnd = true
    this.#closeIfDone()
  }

  receiveWindow(increment: number): void {
    if (this.#isClosed) return
    this.sendWindow += increment
    if (this.sendWindow > MAX_WINDOW) {
      this.reset(CODE.flowControlError)
      return
    }
    if (this.#pending.length > 0 || this.#needsDrain) this.pump()
  }

  /** The stream died under way: RST_STREAM from the peer, or the session went. */
  receiveReset(error: StreamResetError): void {
    // It has said everything and asks for no more (RFC 9113 §8.1): what it said is not lost for that.
    if (!this.#gotEnd || this.#isClosed || error.h2Code !== CODE.noError) return this.#fail(error)
    this.#wantsEnd = true
    this.#sentEnd = true
    this.#pending = []
    this.#close()
  }

  #closeIfDone(): void {
    if (this.#sentEnd && this.#gotEnd) this.#close()
  }

  #fail(error: StreamResetError): void {
    if (this.#isClosed) return
    this.#error = error
    this.#pending = []
    this.#close(error)
  }

  /** What was received and will not be taken: the connection's window gets it back. */
  #discard(): void {
    this.#carrier.credit(this.#held)
    this.#held = 0
    this.#gathered = undefined
  }

  #close(error?: StreamResetError): void {
    this.#isClosed = true
    this.#carrier.ended(this)
    if (this.#error) this.#discard()
    const callbacks = this.#onClosed
    this.#onClosed = NONE
    for (const callback of callbacks) callback()
    if (error) this.#handlers?.reset(error)
    this.#handlers?.closed?.()
  }
}

const NONE: readonly (() => void)[] = []

/** Pieces that wait for the application from which on it counts as slow, and small ones are joined. */
const SLOW_FROM = 32
const EMPTY = Buffer.alloc(0)
