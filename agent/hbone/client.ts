/** The side that opens tunnels: CONNECT (RFC 9113 §8.5) and the wait for its answer. */
import type { Duplex } from 'node:stream'
import type { Cancellation } from '../../lib/cancel.ts'
import { CulvertError } from '../../lib/errors.ts'
import { IntMap } from '../../lib/int-map.ts'
import type { SessionOptions } from './limits.ts'
import { CODE, MAX_WINDOW, PREFACE, SETTING, SessionError, StreamResetError } from './protocol.ts'
import { Session, type Headers } from './session.ts'
import type { Transport } from './transport.ts'
import type { Tunnel } from './tunnel.ts'

export interface ConnectResponse {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
}

interface PendingConnect {
  readonly tunnel: Tunnel
  readonly resolve: (answer: { tunnel: Tunnel; response: ConnectResponse }) => void
  readonly reject: (error: Error) => void
}

export class ClientSession extends Session {
  #nextId = 1
  readonly #pending = new IntMap<PendingConnect>()
  readonly #onReady: (() => void)[] = []
  readonly #onRoom: (() => void)[] = []
  /** Streams handed out by the pool and not opened yet. */
  reserved = 0

  /** Speaks first on a connected, authenticated transport. */
  constructor(transport: Transport | Duplex, options: SessionOptions) {
    super(transport, options, 'client')
    this.writer.raw(PREFACE)
    this.start([
      [SETTING.enablePush, 0],
      [SETTING.initialWindowSize, options.streamWindow],
      [SETTING.maxFrameSize, options.maxFrame],
      [SETTING.maxHeaderListSize, options.maxHeaderList],
    ])
  }

  /** Ends when the peer's SETTINGS are in; rejects when the session ends first. */
  ready(): Promise<void> {
    if (this.peer.hasCome) return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.#onReady.push(resolve)
      this.onClosed(error =>
        reject(error ?? new CulvertError('CLOSED', 'peer closed the connection before its SETTINGS')),
      )
    })
  }

  /** Streams that may be opened now, by the peer's limit and ours. */
  capacity(limit: number): number {
    if (this.isClosed || this.isGoawayReceived || this.isGoawaySent || this.#nextId > MAX_WINDOW - 2) return 0
    return Math.min(limit, this.peer.maxStreams) - this.tunnels.size - this.reserved
  }

  /** Reports whether the peer takes no streams at present, on this session or on another. */
  get isShut(): boolean {
    return this.peer.maxStreams === 0 && !this.isClosed
  }

  /** Calls back each time a stream has ended or the peer allows more. */
  onRoom(callback: () => void): void {
    this.#onRoom.push(callback)
  }

  /**
   * Opens a tunnel to `authority` (`ip:port`). Resolves with whatever final status the peer gave; only on 200 is
   * there a tunnel to use. Rejects with `StreamResetError` when the stream or session ended before an answer.
   * When the signal aborts the stream is reset and the signal's reason is thrown.
   */
  connect(
    authority: string,
    headers: Headers,
    signal?: Cancellation,
  ): Promise<{ tunnel: Tunnel; response: ConnectResponse }> {
    if (this.isClosed || this.isGoawayReceived)
      return Promise.reject(
        new StreamResetError(CODE.refusedStream, 'session is closing', { byPeer: true, isRetryable: true }),
      )
    if (signal?.aborted) {
      this.streamGone() // the place that was reserved for it is free again
      return Promise.reject(signal.reason)
    }
    const id = this.#nextId
    this.#nextId += 2
    const tunnel = this.newTunnel(id)
    const block = this.encoder.encode([[':method', 'CONNECT'], [':authority', authority], ...headers])
    this.writer.headers(id, block, false, this.peer.maxFrame)
    return new Promise((resolve, reject) => {
      const abort = () => {
        settle()
        tunnel.reset(CODE.cancel)
        reject(signal!.reason)
      }
      const settle = () => {
        this.#pending.delete(id)
        signal?.removeEventListener('abort', abort)
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#pending.set(id, {
        tunnel,
        resolve: answer => {
          settle()
          resolve(answer)
        },
        reject: error => {
          settle()
          reject(error)
        },
      })
    })
  }

  headers(streamId: number, block: Buffer, endStream: boolean): void {
    const decoded = this.decodeHeaders(block) // always, to keep the table in step
    if (this.isIdleStream(streamId))
      throw new SessionError(CODE.protocolError, `HEADERS on idle stream ${streamId}`)
    const tunnel = this.tunnels.get(streamId)
    if (!tunnel) return this.spend('HEADERS on a closed stream')
    const pending = this.#pending.get(streamId)
    if (!pending) return this.furtherHeaders(tunnel)
    const status = decoded.isMalformed ? undefined : parseStatus(decoded.fields.get(':status'))
    if (decoded.isTooLarge || status === undefined || (status < 200 && endStream)) {
      this.refused(decoded.isTooLarge ? 'maxHeaderList' : 'malformed')
      tunnel.reset(CODE.protocolError)
      return
    }
    if (status < 200) return this.spend('informational HEADERS') // the answer is still to come
    pending.resolve({ tunnel, response: { status, headers: decoded.fields } })
    if (endStream) tunnel.receiveEnd()
    if (status !== 200) {
      if (endStream) tunnel.end()
      else tunnel.reset(CODE.cancel)
    }
  }

  override dataBegin(streamId: number, length: number): void {
    if (this.#pending.size > 0 && this.#pending.has(streamId)) {
      this.refused('malformed') // DATA before the answer
      this.tunnels.get(streamId)?.reset(CODE.protocolError)
    }
    super.dataBegin(streamId, length)
  }

  protected override peerReady(): void {
    for (const done of this.#onReady) done()
    this.#onReady.length = 0
  }

  protected override tunnelEnded({ id, error }: Tunnel): void {
    this.#pending
      .get(id)
      ?.reject(error ?? new StreamResetError(CODE.noError, 'stream ended before an answer', { byPeer: true }))
  }

  protected override streamGone(): void {
    for (const callback of this.#onRoom) callback()
  }

  protected override goawayFrom(lastStreamId: number, code: number, debug: string): void {
    for (const tunnel of this.tunnels.values())
      if (tunnel.id > lastStreamId)
        tunnel.receiveReset(
          new StreamResetError(code, `peer is closing the session${debug ? ` (${debug})` : ''}`, {
            byPeer: true,
            isRetryable: true,
          }),
        )
  }

  protected override isIdleStream(streamId: number): boolean {
    return streamId % 2 === 0 || streamId >= this.#nextId
  }

  protected override lastPeerStream(): number {
    return 0
  }
}

/** 100 to 599 in three digits (RFC 9110 §15), but for 101, which HTTP/2 does not have (RFC 9113 §8.6). */
function parseStatus(text: string | undefined): number | undefined {
  if (text === undefined || text.length !== 3) return undefined
  let status = 0
  for (let at = 0; at < 3; at++) {
    const digit = text.charCodeAt(at) - 0x30
    if (digit < 0 || digit > 9) return undefined
    status = status * 10 + digit
  }
  return status >= 100 && status <= 599 && status !== 101 ? status : undefined
}
