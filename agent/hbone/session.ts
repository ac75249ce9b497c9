/**
 * One HTTP/2 connection over one TLS connection, either side: frames in, streams, PING, GOAWAY, the end of it all.
 * Client and server differ only in who opens streams; they are small subclasses. Rules:
 * - everything ends in `#close()`, once: every stream is told, every timer is gone.
 * - a violation by the peer ends the session with a GOAWAY that names it; nothing the peer sends can throw further.
 */
import { Duplex } from 'node:stream'
import { errorText } from '../../lib/errors.ts'
import { IntMap } from '../../lib/int-map.ts'
import { printable } from '../../lib/printable.ts'
import { ControlBudget } from './budget.ts'
import { Flow } from './flow.ts'
import { FrameReader, type FrameSink } from './frame-reader.ts'
import { FrameWriter } from './frame-writer.ts'
import { HeaderReader, type DecodedHeaders } from './header-reader.ts'
import { HpackEncoder } from './hpack/encoder.ts'
import { MAX_UNREAD_ANSWERS, SMALL_WINDOW_UPDATE, type SessionOptions } from './limits.ts'
import {
  CODE,
  DEFAULT_WINDOW,
  FRAME,
  MAX_WINDOW,
  PRIORITY_BYTES,
  SessionError,
  StreamResetError,
  codeName,
} from './protocol.ts'
import { Liveness } from './liveness.ts'
import { PeerSettings } from './peer-settings.ts'
import { sessionEnd, type Refusal, type SessionEnd, type Side } from './session-end.ts'
import { StreamTransport, type Transport, type TransportSink } from './transport.ts'
import { Tunnel } from './tunnel.ts'

export type Headers = readonly (readonly [name: string, value: string])[]

export abstract class Session implements FrameSink, TransportSink {
  readonly options: SessionOptions
  readonly transport: Transport
  protected readonly writer: FrameWriter
  protected readonly encoder = new HpackEncoder({ maxTableSize: 4096 })
  protected readonly tunnels = new IntMap<Tunnel>()
  protected readonly peer: PeerSettings
  protected isGoawaySent = false
  protected isGoawayReceived = false
  readonly #side: Side
  readonly #headerReader: HeaderReader
  readonly #budget = new ControlBudget()
  readonly #liveness: Liveness
  readonly #reader: FrameReader
  readonly #flow: Flow
  #dataTarget: Tunnel | undefined
  #dataDropped = 0
  #settingsTimer: NodeJS.Timeout | undefined
  /** The peer has acknowledged our SETTINGS. */
  #isAcknowledged = false
  #isClosed = false
  #closeError: Error | undefined
  /** What the peer's GOAWAY said. */
  #peerCode: number | undefined
  readonly #onClosed: ((error: Error | undefined) => void)[] = []

  constructor(transport: Transport | Duplex, options: SessionOptions, side: Side) {
    this.transport = transport instanceof Duplex ? new StreamTransport(transport) : transport
    this.options = options
    this.writer = new FrameWriter(this.transport)
    this.#flow = new Flow(this.writer, options, tunnel => this.#ended(tunnel))
    this.#side = side
    this.peer = new PeerSettings(side)
    this.#reader = new FrameReader(this, options.maxFrame, { beginsWithSettings: true })
    this.#headerReader = new HeaderReader(options.maxHeaderList, side === 'server' ? 'request' : 'response')
    this.#liveness = new Liveness(
      options,
      payload => this.writer.ping(payload, false),
      error => this.#close('us', error),
    )
    this.#settingsTimer = setTimeout(
      () =>
        this.fail(
          new SessionError(
            CODE.settingsTimeout,
            `${this.peer.hasCome ? 'SETTINGS not acknowledged' : 'no SETTINGS'} within ${options.prefaceTimeoutMs} ms`,
            { limit: 'prefaceTimeoutMs' },
          ),
        ),
      options.prefaceTimeoutMs,
    )
    this.#settingsTimer.unref()
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** A stream of it carries much at present: others would wait behind its bytes. */
  get isBulky(): boolean {
    return this.#flow.isBulky
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
    this.#flow.pump()
  }

  /** The transport is gone. */
  closed(error: Error | undefined): void {
    this.#close(error ? 'network' : 'peer', error)
  }

  protected newTunnel(id: number): Tunnel {
    const tunnel = new Tunnel(id, this.#flow, {
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
    this.#close('us', error)
  }

  /** Ends the session at once; open streams are reset toward their applications. */
  destroy(error?: Error): void {
    this.#close('us', error)
  }

  protected abstract lastPeerStream(): number

  protected closeIfIdle(): void {
    if (this.tunnels.size > 0 || this.#isClosed) return
    if (this.isGoawaySent || this.isGoawayReceived)
      this.#close(this.isGoawayReceived ? 'peer' : 'us', undefined)
  }

  #close(by: SessionEnd['by'], error: Error | undefined): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#reader.stop()
    this.#flow.close()
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
    this.transport.end() // what was written last, a GOAWAY perhaps, may still leave
    for (const callback of this.#onClosed) callback(error)
    this.#onClosed.length = 0
    this.options.observer?.ended(this.#side, sessionEnd(by, error, this.#peerCode))
  }

  /** A stream that is not served, for the count. */
  protected refused(why: Refusal): void {
    this.options.observer?.refused(this.#side, why)
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
      throw new SessionError(CODE.enhanceYourCalm, 'peer does not read the answers to its frames', {
        limit: 'MAX_UNREAD_ANSWERS',
      })
  }

  /** A tunnel is over; its `error` says why, if it was not in order. */
  protected tunnelEnded(_tunnel: Tunnel): void {}

  /** A stream has ended, or the peer allows more: there is place for another. */
  protected streamGone(): void {}

  #ended(tunnel: Tunnel): void {
    if (this.tunnels.delete(tunnel.id)) {
      this.tunnelEnded(tunnel)
      this.streamGone()
    }
    this.closeIfIdle()
  }

  // === FrameSink ===

  dataBegin(streamId: number, length: number): void {
    this.#flow.receive(length)
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
    if (!tunnel) this.#flow.credit(this.#dataDropped)
    else {
      tunnel.passedOver(padding)
      if (endStream) tunnel.receiveEnd()
    }
  }

  abstract headers(streamId: number, block: Buffer, endStream: boolean): void

  /** More headers on a stream that has had its own: a tunnel has DATA and no trailers (RFC 9113 §8.5). */
  protected furtherHeaders(tunnel: Tunnel): void {
    tunnel.reset(tunnel.receiveBegin(0) ? CODE.protocolError : CODE.streamClosed)
  }

  /** Reports whether no message has ever been seen on the stream. */
  protected abstract isIdleStream(streamId: number): boolean

  rstStream(streamId: number, code: number): void {
    this.spend('RST_STREAM')
    if (this.isIdleStream(streamId))
      throw new SessionError(CODE.protocolError, `RST_STREAM on idle stream ${streamId}`)
    this.tunnels
      .get(streamId)
      ?.receiveReset(new StreamResetError(code, `stream reset by peer: ${codeName(code)}`, { byPeer: true }))
  }

  settings(isAck: boolean, payload: Buffer): void {
    if (isAck) {
      this.#isAcknowledged = true
      if (this.peer.hasCome) clearTimeout(this.#settingsTimer)
      return
    }
    this.spend('SETTINGS')
    const streamsBefore = this.peer.maxStreams
    const windowChange = this.peer.apply(payload)
    const { lowestTableSize, headerTableSize } = this.peer
    if (lowestTableSize !== undefined) this.encoder.setPeerMaxTableSize(lowestTableSize)
    if (headerTableSize !== undefined) this.encoder.setPeerMaxTableSize(headerTableSize)
    for (const tunnel of this.tunnels.values()) {
      tunnel.sendWindow += windowChange // may go below zero: RFC 9113 §6.9.2
      if (tunnel.sendWindow > MAX_WINDOW)
        throw new SessionError(CODE.flowControlError, 'stream window overflow')
      tunnel.maxPayload = Math.min(this.peer.maxFrame, this.options.sendFrame)
      if (windowChange > 0) this.#flow.waitForRoom(tunnel)
    }
    this.writer.settingsAck()
    if (!this.peer.hasCome) {
      this.peer.hasCome = true
      if (this.#isAcknowledged) clearTimeout(this.#settingsTimer)
      this.peerReady()
    } else if (this.peer.maxStreams > streamsBefore) this.streamGone()
    this.#flow.pump()
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
    this.#peerCode = code
    this.goawayFrom(lastStreamId, code, printable(debug.toString('utf8', 0, 256), 256))
    this.closeIfIdle()
  }

  protected abstract goawayFrom(lastStreamId: number, code: number, debug: string): void

  windowUpdate(streamId: number, increment: number): void {
    if (increment < SMALL_WINDOW_UPDATE) this.spend('small WINDOW_UPDATE')
    if (streamId === 0) return this.#flow.grow(increment)
    const tunnel = this.tunnels.get(streamId)
    if (!tunnel) {
      if (this.isIdleStream(streamId))
        throw new SessionError(CODE.protocolError, `WINDOW_UPDATE on idle stream ${streamId}`)
      return
    }
    if (increment === 0) tunnel.reset(CODE.protocolError)
    else tunnel.receiveWindow(increment)
  }

  ignored(type: number, streamId: number, length: number): void {
    this.spend(`type ${type}`)
    if (type !== FRAME.priority || length === PRIORITY_BYTES) return
    // A stream error, but an idle stream cannot be reset (RFC 9113 §6.3, §6.4).
    if (this.isIdleStream(streamId))
      throw new SessionError(CODE.frameSizeError, `PRIORITY frame of ${length} bytes`)
    this.tunnels.get(streamId)?.reset(CODE.frameSizeError)
  }
}
