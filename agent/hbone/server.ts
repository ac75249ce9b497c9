/** The side that is asked: reads CONNECT requests and answers them. */
import type { Duplex } from 'node:stream'
import type { SessionOptions } from './limits.ts'
import { CODE, PREFACE, SETTING, SessionError } from './protocol.ts'
import { Session, type Headers } from './session.ts'
import type { Transport } from './transport.ts'
import type { Tunnel } from './tunnel.ts'

/** A request as it came; nothing in it is trusted. */
export interface ConnectRequest {
  readonly method: string
  readonly authority: string
  readonly headers: ReadonlyMap<string, string>
  readonly tunnel: Tunnel
  /** 200 opens the tunnel; anything else ends the stream with that status. */
  respond(status: number, headers?: Headers): void
}

export class ServerSession extends Session {
  #lastId = 0
  #prefaceAt = 0
  readonly #onConnect: (request: ConnectRequest) => void

  /** Answers on a connected, authenticated transport. `onConnect` is called once per request and must not throw. */
  constructor(
    transport: Transport | Duplex,
    options: SessionOptions,
    onConnect: (request: ConnectRequest) => void,
  ) {
    super(transport, options, 'server')
    this.#onConnect = onConnect
    this.start([
      [SETTING.maxConcurrentStreams, options.maxConcurrentStreams],
      [SETTING.initialWindowSize, options.streamWindow],
      [SETTING.maxFrameSize, options.maxFrame],
      [SETTING.maxHeaderListSize, options.maxHeaderList],
    ])
  }

  override received(chunk: Buffer, length: number): void {
    if (this.#prefaceAt === PREFACE.length) return super.received(chunk, length)
    const take = Math.min(PREFACE.length - this.#prefaceAt, length)
    if (chunk.compare(PREFACE, this.#prefaceAt, this.#prefaceAt + take, 0, take) !== 0) {
      this.fail(new SessionError(CODE.protocolError, 'not an HTTP/2 client: wrong connection preface'))
      return
    }
    this.#prefaceAt += take
    if (length > take) super.received(chunk.subarray(take, length), length - take)
  }

  headers(streamId: number, block: Buffer, endStream: boolean): void {
    const decoded = this.decodeHeaders(block) // always, to keep the table in step
    if (streamId % 2 === 0) throw new SessionError(CODE.protocolError, `HEADERS on even stream ${streamId}`)
    if (streamId <= this.#lastId) {
      const tunnel = this.tunnels.get(streamId)
      if (!tunnel) return this.spend('HEADERS on a closed stream') // its end is on the way to the peer
      return this.furtherHeaders(tunnel)
    }
    this.#lastId = streamId
    const isLate = streamId > this.refuseFrom
    if (isLate || this.tunnels.size >= this.options.maxConcurrentStreams) {
      this.refused(isLate ? 'goaway' : 'maxConcurrentStreams')
      this.spend('refused stream')
      this.writer.rstStream(streamId, CODE.refusedStream)
      return
    }
    const tunnel = this.newTunnel(streamId)
    let isAnswered = false
    const respond = (status: number, headers: Headers = []) => {
      if (isAnswered || tunnel.isClosed || this.isClosed) return
      isAnswered = true
      const isOpen = status === 200
      this.writer.headers(
        streamId,
        this.encoder.encode([[':status', String(status)], ...headers]),
        !isOpen,
        this.peer.maxFrame,
      )
      if (isOpen) return
      tunnel.endedByHeaders()
      this.charge('refused request')
    }
    if (endStream) tunnel.receiveEnd()
    if (decoded.isTooLarge) {
      this.refused('maxHeaderList')
      return respond(431)
    }
    const method = decoded.fields.get(':method')
    const authority = decoded.fields.get(':authority')
    // RFC 9113 §8.5: CONNECT has :method and :authority, and neither :scheme nor :path.
    const isClassic = !decoded.fields.has(':path') && !decoded.fields.has(':scheme')
    if (decoded.isMalformed || method !== 'CONNECT' || !authority || !isClassic) {
      this.refused('malformed')
      return respond(400)
    }
    this.#onConnect({ method, authority, headers: decoded.fields, tunnel, respond })
  }

  protected override goawayFrom(): void {
    // The client opens no more streams; those it has go on.
  }

  protected override isIdleStream(streamId: number): boolean {
    return streamId % 2 === 0 || streamId > this.#lastId
  }

  protected override lastPeerStream(): number {
    return this.#lastId
  }
}
