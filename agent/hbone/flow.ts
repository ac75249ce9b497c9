/**
 * What the streams of a session share: the connection's windows (RFC 9113 §5.2), the room before the transport, and whose
 * turn it is when there is room again. Every byte of every tunnel passes here.
 */
import type { FrameWriter } from './frame-writer.ts'
import { BULK_MS, type SessionOptions } from './limits.ts'
import { CODE, DEFAULT_WINDOW, MAX_WINDOW, SessionError } from './protocol.ts'
import type { Tunnel, TunnelCarrier } from './tunnel.ts'

export class Flow implements TunnelCarrier {
  readonly #writer: FrameWriter
  readonly #options: SessionOptions
  readonly #onEnded: (tunnel: Tunnel) => void
  #sendWindow = DEFAULT_WINDOW
  #receiveWindow: number
  /** Taken by the applications, and not yet told to the peer. */
  #unreported = 0
  #waiting = new Set<Tunnel>()
  #isPumping = false
  #isClosed = false
  #bulkyUntilMs = 0

  /** `onEnded` hears of each tunnel that is over, once. */
  constructor(writer: FrameWriter, options: SessionOptions, onEnded: (tunnel: Tunnel) => void) {
    this.#writer = writer
    this.#options = options
    this.#onEnded = onEnded
    this.#receiveWindow = options.connectionWindow
  }

  sendData(tunnel: Tunnel, payload: Buffer, endStream: boolean): void {
    this.#sendWindow -= payload.length
    this.#writer.data(tunnel.id, payload, endStream)
  }

  sendInPlace(tunnel: Tunnel, buffer: Buffer, length: number): void {
    this.#sendWindow -= length
    this.#writer.dataInPlace(tunnel.id, buffer, length)
  }

  sendReset(streamId: number, code: number): void {
    if (!this.#isClosed) this.#writer.rstStream(streamId, code)
  }

  sendWindowUpdate(streamId: number, increment: number): void {
    if (!this.#isClosed) this.#writer.windowUpdate(streamId, increment)
  }

  room(): number {
    if (this.#writer.backlog >= this.#options.sendBuffer) return 0
    return this.#sendWindow
  }

  waitForRoom(tunnel: Tunnel): void {
    this.#waiting.add(tunnel)
  }

  /** A stream carries much at present: others would wait behind its bytes. */
  get isBulky(): boolean {
    return performance.now() < this.#bulkyUntilMs
  }

  bulk(): void {
    this.#bulkyUntilMs = performance.now() + BULK_MS
  }

  credit(bytes: number): void {
    if (bytes === 0 || this.#isClosed) return
    this.#unreported += bytes
    if (this.#unreported < this.#options.connectionWindow / 2) return
    this.#writer.windowUpdate(0, this.#unreported)
    this.#receiveWindow += this.#unreported
    this.#unreported = 0
  }

  ended(tunnel: Tunnel): void {
    this.#waiting.delete(tunnel)
    this.#onEnded(tunnel)
  }

  /** A DATA frame of this length has come. Throws `SessionError` when the peer overran the connection's window. */
  receive(length: number): void {
    this.#receiveWindow -= length
    if (this.#receiveWindow < 0)
      throw new SessionError(CODE.flowControlError, 'connection window overrun', {
        limit: 'connectionWindow',
      })
  }

  /** The peer's WINDOW_UPDATE for the connection. Throws `SessionError` when it is none that may be (RFC 9113 §6.9). */
  grow(increment: number): void {
    if (increment === 0) throw new SessionError(CODE.protocolError, 'WINDOW_UPDATE of 0')
    this.#sendWindow += increment
    if (this.#sendWindow > MAX_WINDOW)
      throw new SessionError(CODE.flowControlError, 'connection window overflow')
    this.pump()
  }

  /** There may be room again. Each that waits gets one turn; who still waits has added itself again, behind the others. */
  pump(): void {
    if (this.#isPumping || this.#waiting.size === 0) return
    this.#isPumping = true
    const turn = this.#waiting
    this.#waiting = new Set()
    for (const tunnel of turn) tunnel.pump()
    this.#isPumping = false
  }

  /** Nothing is sent any more, and nobody waits. */
  close(): void {
    this.#isClosed = true
    this.#waiting.clear()
  }
}
