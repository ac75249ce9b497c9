/**
 * One HTTP/2 connection over one TLS connection, either side: frames in, frames out, windows, PING, GOAWAY.
 * Client and server differ only in who opens streams; they are small subclasses. Rules:
 * - everything ends in `#close()`, once: every stream is told, every timer is gone.
 * - a violation by the peer ends the session with a GOAWAY that names it; nothing the peer sends can throw further.
 */
import { Duplex } from 'node:stream'
import { errorText } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import { ControlBudget } from './budget.ts'
import { FrameReader, type FrameSink } from './frame-reader.ts'
import { FrameWriter } from './frame-writer.ts'
import { HeaderReader, type DecodedHeaders } from './header-reader.ts'
import { HpackEncoder } from './hpack/encoder.ts'
import { MAX_UNREAD_ANSWERS, SMALL_WINDOW_UPDATE, type SessionOptions } from './limits.ts'
import { CODE, DEFAULT_WINDOW, MAX_WINDOW, SessionError, StreamResetError, codeName } from './protocol.ts'
import { Liveness } from './liveness.ts'
import { PeerSettings } from './peer-settings.ts'
import { StreamTransport, type Transport, type TransportSink } from './transport.ts'
import { Tunnel, type TunnelCarrier } from './tunnel.ts'

export type Headers = readonly (readonly [name: string, value: string])[]

export abstract class Session implements FrameSink, TunnelCarrier, TransportSink {
  readonly options: SessionOptions
  readonly transport: Transport
  protected readonly writer: FrameWriter
  protected readonly encoder = new HpackEncoder({ maxTableSize: 4096 })
  protected readonly tunnels = new Map<number, Tunnel>()
  protected readonly peer = new PeerSettings()
  protected isGoawaySent = false
  protected isGoawayReceived = false
  readonly #headerReader: HeaderReader
  readonly #budget = new ControlBudget()
  readonly #liveness: Liveness
  readonly #reader: FrameReader
  #sendWindow = DEFAULT_WINDOW
  #receiveWindow: number
  #unreported = 0
  #waiting = new Set<Tunnel>()
  #isPumping = false
  #dataTarget: Tunnel | undefined
  #dataDropped = 0
  #settingsTimer: NodeJS.Timeout | undefined
  #isClosed = false
  #closeError: Error | undefined
  readonly #onClosed: ((error: Error | undefined) => void)[] = []

  constructor(transport: Transport | Duplex, options: SessionOptions) {
    this.transport = transport instanceof Duplex ? new StreamTransport(transport) : transport
    this.options = options
    this.writer = new FrameWriter(this.transport)
    this.#reader = new FrameReader(this, options.maxFrame)
    this.#headerReader = new HeaderReader(options.maxHeaderList)
    this.#liveness = new Liveness(
      options,
      payload => this.writer.ping(payload, false),
      error => this.#close(error),
    )
    this.#receiveWindow = options.connectionWindow
    this.#settingsTimer = setTimeout(
      () =>
        this.fail(
          new SessionError(CODE.settingsTimeout, `no SETTINGS within ${options.prefaceTimeoutMs} ms`),
        ),
      options.prefaceTimeoutMs,
    )
    this.#settingsTimer.unref()
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  get openStreams(): number {
    return this.tunnels.size
  }

  /** Why it ended: undefined while it lives and after an orderly end. */
  get closeError(): Error | undefined {
    return this.#closeError
  }

  onClosed(callback: (error: Error | undefined) => void): void {
    if (this.#isClosed) callback(this.#closeError)
    else this.#onClosed.push(callback)
  }

  /** Takes the connection's bytes, which are the transport's again when it returns. */
  received(chunk: Buffer, length: number): void {
    if (this.#isClosed) return
    this.#liveness.heard()
    try {
      this.#reader.push(chunk, length)
      this.#checkUnread()
    } catch (err) {
      this.fail(
        err instanceof SessionError
          ? err
          : new SessionError(CODE.internalError, errorText(err), { cause: err }),
      )
    }
  }

  /** Starts reading; SETTINGS and the larger connection window go out first. */
  protected start(settings: readonly (readonly [number, number])[]): void {
    this.writer.settings(settings)
    this.writer.windowUpdate(0, this.options.connectionWindow - DEFAULT_WINDOW)
    this.transport.start(this)
  }

  drained(): void {
    this.#pumpAll()
  }

  /** The transport is gone. */
  closed(error: Error | undefined): void {
    this.#close(error)
  }

  protected newTunnel(id: number): Tunnel {
    const tunnel = new Tunnel(id, this, {
      send: this.peer.initialWindow,
      receive: this.options.streamWindow,
      maxPayload: Math.min(this.peer.maxFrame, this.options.sendFrame),
    })
    this.tunnels.set(id, tunnel)
    return tunnel
  }

  /** Every block must come through here, wanted or not: the table is the connection's. */
  protected decodeHeaders(block: Buffer): DecodedHeaders {
    return this.#headerReader.read(block)
  }

  // === orderly and disorderly ends ===

  /**
   * No new streams from the peer; those that are open go on. The session closes when the last one has ended.
   * A graceful GOAWAY is in two steps, so that streams already under way are not refused (RFC 9113 §6.8).
   */
  goaway(code: number = CODE.noError, text = ''): void {
    if (this.#isClosed || this.isGoawaySent) return
    this.isGoawaySent = true
    this.writer.goaway(code === CODE.noError ? MAX_WINDOW : this.lastPeerStream(), code, text)
    if (code === CODE.noError)
      this.ping(() => {
        if (this.#isClosed) return
        this.writer.goaway(this.lastPeerStream(), code, text)
        this.refuseFrom = this.lastPeerStream()
        this.closeIfIdle()
      })
    this.closeIfIdle()
  }

  /** Streams above this id are refused, once the second GOAWAY is out. */
  protected refuseFrom = Number.POSITIVE_INFINITY

  /** Ends the session now: GOAWAY with the code, streams are reset. */
  fail(error: SessionError): void {
    if (this.#isClosed) return
    this.writer.goaway(this.lastPeerStream(), error.h2Code, error.message)
    this.writer.flush()
    this.#close(error)
  }

  /** Ends the session at once; open streams are reset toward their applications. */
  destroy(error?: Error): void {
    this.#close(error)
  }

  protected abstract lastPeerStream(): number

  protected closeIfIdle(): void {
    if (this.tunnels.size > 0 || this.#isClosed) return
    if (this.isGoawaySent || this.isGoawayReceived) this.#close(undefined)
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#closeError = error
    this.#liveness.close()
    clearTimeout(this.#settingsTimer)
    this.writer.flush()
    this.writer.close()
    for (const tunnel of this.tunnels.values())
      tunnel.receiveReset(
        new StreamResetError(
          CODE.connectError,
          `tunnel lost: ${error ? errorText(error) : 'peer closed the connection'}`,
          {
            byPeer: true,
            cause: error,
          },
        ),
      )
    this.tunnels.clear()
    this.#waiting.clear()
    this.transport.end() // what was written last, a GOAWAY perhaps, may still leave
    for (const callback of this.#onClosed) callback(error)
    this.#onClosed.length = 0
  }

  /** Sends a PING; calls back with the round trip time. Never calls back when the session ends first. */
  ping(done: (rttMs: number) => void): void {
    if (!this.#isClosed) this.#liveness.ping(done)
  }

  /** Counts a frame that moves no application byte. Throws `SessionError` when there were too many. */
  protected spend(what: string): void {
    this.#budget.spend(what)
  }

  /** As `spend`, for what is noticed later than the frame: too many end the session. */
  protected charge(what: string): void {
    try {
      this.#budget.spend(what)
    } catch (err) {
      this.fail(err as SessionError)
    }
  }

  #checkUnread(): void {
    if (!this.#isClosed && this.writer.backlog > this.options.sendBuffer * 2 + MAX_UNREAD_ANSWERS)
      throw new SessionError(CODE.enhanceYourCalm, 'peer does not read the answers to its frames')
  }

  // === TunnelCarrier ===

  sendData(tunnel: Tunnel, payload: Buffer, endStream: boolean): void {
    this.#sendWindow -= payload.length
    this.writer.data(tunnel.id, payload, endStream)
  }

  sendInPlace(tunnel: Tunnel, buffer: Buffer, length: number): void {
    this.#sendWindow -= length
    this.writer.dataInPlace(tunnel.id, buffer, length)
  }

  sendReset(streamId: number, code: number): void {
    if (!this.#isClosed) this.writer.rstStream(streamId, code)
  }

  sendWindowUpdate(streamId: number, increment: number): void {
    if (!this.#isClosed) this.writer.windowUpdate(streamId, increment)
  }

  room(): number {
    if (this.writer.backlog >= this.options.sendBuffer) return 0
    return this.#sendWindow
  }

  waitForRoom(tunnel: Tunnel): void {
    this.#waiting.add(tunnel)
  }

  credit(bytes: number): void {
    if (bytes === 0 || this.#isClosed) return
    this.#unreported += bytes
    if (this.#unreported < this.options.connectionWindow / 2) return
    this.writer.windowUpdate(0, this.#unreported)
    this.#receiveWindow += this.#unreported
    this.#unreported = 0
  }

  ended(tunnel: Tunnel): void {
    this.#waiting.delete(tunnel)
    if (this.tunnels.delete(tunnel.id)) this.streamGone()
    this.closeIfIdle()
  }

  /** A stream has ended, or the peer allows more: there is place for another. */
  protected streamGone(): void {}

  #pumpAll(): void {
    if (this.#isPumping || this.#waiting.size === 0) return
    this.#isPumping = true
    const turn = this.#waiting
    this.#waiting = new Set()
    // Each gets one turn; who still waits has added itself again, behind the others.
    for (const tunnel of turn) tunnel.pump()
    this.#isPumping = false
  }

  // === FrameSink ===

  dataBegin(streamId: number, length: number): void {
    this.#requireSettings()
    this.#receiveWindow -= length
    if (this.#receiveWindow < 0) throw new SessionError(CODE.flowControlError, 'connection window overrun')
    if (length === 0) this.spend('empty DATA')
    const tunnel = this.tunnels.get(streamId)
    this.#dataDropped = 0
    if (tunnel?.receiveBegin(length)) this.#dataTarget = tunnel
    else {
      if (this.isIdleStream(streamId))
        throw new SessionError(CODE.protocolError, `DATA on idle stream ${streamId}`)
      if (tunnel) tunnel.reset(CODE.streamClosed)
      this.#dataTarget = undefined
      this.#dataDropped = length
    }
  }

  data(_streamId: number, piece: Buffer): void {
    this.#dataTarget?.receiveData(piece)
  }

  dataEnd(_streamId: number, endStream: boolean, padding: number): void {
    const tunnel = this.#dataTarget
    this.#dataTarget = undefined
    if (!tunnel) this.credit(this.#dataDropped)
    else {
      tunnel.passedOver(padding)
      if (endStream) tunnel.receiveEnd()
    }
  }

  abstract headers(streamId: number, block: Buffer, endStream: boolean): void

  /** Reports whether no message has ever been seen on the stream. */
  protected abstract isIdleStream(streamId: number): boolean

  rstStream(streamId: number, code: number): void {
    this.#requireSettings()
    this.spend('RST_STREAM')
    if (this.isIdleStream(streamId))
      throw new SessionError(CODE.protocolError, `RST_STREAM on idle stream ${streamId}`)
    this.tunnels
      .get(streamId)
      ?.receiveReset(new StreamResetError(code, `stream reset by peer: ${codeName(code)}`, { byPeer: true }))
  }

  settings(isAck: boolean, payload: Buffer): void {
    if (isAck) return
    this.spend('SETTINGS')
    const streamsBefore = this.peer.maxStreams
    const windowChange = this.peer.apply(payload)
    if (this.peer.headerTableSize !== undefined) this.encoder.setPeerMaxTableSize(this.peer.headerTableSize)
    for (const tunnel of this.tunnels.values()) {
      tunnel.sendWindow += windowChange // may go below zero: RFC 9113 §6.9.2
      if (tunnel.sendWindow > MAX_WINDOW)
        throw new SessionError(CODE.flowControlError, 'stream window overflow')
      tunnel.maxPayload = Math.min(this.peer.maxFrame, this.options.sendFrame)
      if (windowChange > 0) this.#waiting.add(tunnel)
    }
    this.writer.settingsAck()
    if (!this.peer.hasCome) {
      this.peer.hasCome = true
      clearTimeout(this.#settingsTimer)
      this.peerReady()
    } else if (this.peer.maxStreams > streamsBefore) this.streamGone()
    this.#pumpAll()
  }

  /** The peer's first SETTINGS are in. */
  protected peerReady(): void {}

  pingFrame(isAck: boolean, payload: Buffer): void {
    this.spend('PING')
    if (isAck) {
      this.#liveness.acknowledged(payload)
      return
    }
    this.writer.ping(payload, true)
  }

  goawayFrame(lastStreamId: number, code: number, debug: Buffer): void {
    this.spend('GOAWAY')
    this.isGoawayReceived = true
    this.goawayFrom(lastStreamId, code, printable(debug.toString('utf8', 0, 256), 256))
    this.closeIfIdle()
  }

  protected abstract goawayFrom(lastStreamId: number, code: number, debug: string): void

  windowUpdate(streamId: number, increment: number): void {
    this.#requireSettings()
    if (increment < SMALL_WINDOW_UPDATE) this.spend('small WINDOW_UPDATE')
    if (streamId === 0) {
      if (increment === 0) throw new SessionError(CODE.protocolError, 'WINDOW_UPDATE of 0')
      this.#sendWindow += increment
      if (this.#sendWindow > MAX_WINDOW)
        throw new SessionError(CODE.flowControlError, 'connection window overflow')
      this.#pumpAll()
      return
    }
    const tunnel = this.tunnels.get(streamId)
    if (!tunnel) {
      if (this.isIdleStream(streamId))
        throw new SessionError(CODE.protocolError, `WINDOW_UPDATE on idle stream ${streamId}`)
      return
    }
    if (increment === 0) tunnel.reset(CODE.protocolError)
    else tunnel.receiveWindow(increment)
  }

  ignored(type: number): void {
    this.spend(`type ${type}`)
  }

  #requireSettings(): void {
    if (!this.peer.hasCome) throw new SessionError(CODE.protocolError, 'the first frame was not SETTINGS')
  }
}
