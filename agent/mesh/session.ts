/**
 * One HTTP/2 connection to the discovery server, made for one stream and closed with it, so that each stream
 * begins with the root certificates and the token of that moment. A server that stops answering pings is gone.
 */
import * as http2 from 'node:http2'
import { isIP } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { GrpcTransportOptions } from '@connectrpc/connect-node'
import { CulvertError } from '../../lib/errors.ts'

// A full picture is tens of megabytes: the default of 64 KiB in flight would make it wait for round trips.
const WINDOW_BYTES = 4 * 1024 * 1024

type SessionManager = NonNullable<GrpcTransportOptions['sessionManager']>

export interface SessionOptions {
  /** https. The server's certificate must hold its host name. */
  readonly url: URL
  /** PEM of the roots the server is verified against; undefined means the system's. */
  readonly rootCa: string | undefined
  /** For TCP, TLS and HTTP/2 together. */
  readonly connectTimeoutMs: number
  readonly pingIntervalMs: number
  readonly pingTimeoutMs: number
}

export class DiscoverySession implements SessionManager {
  readonly authority: string
  /**
   * Rejects when the connection has ended, `close()` included; never resolves. `UNREACHABLE`: no TCP connection.
   * `TLS`: no handshake, or not with whom it should be. `TIMEOUT`: either took too long, or a ping. `CLOSED`: lost.
   */
  readonly ended: Promise<never>
  readonly #session: http2.ClientHttp2Session
  readonly #socket: TLSSocket
  readonly #ended: (failure: CulvertError) => void
  readonly #connected: Promise<void>
  readonly #timers = new Set<NodeJS.Timeout>()
  #isConnected = false
  #failure: CulvertError | undefined

  constructor(options: SessionOptions) {
    const { url, rootCa, connectTimeoutMs, pingIntervalMs } = options
    if (url.protocol !== 'https:')
      throw new CulvertError('CONFIG', `the discovery server's address must be https, not '${url.protocol}'`)
    this.authority = url.origin
    // An empty text would count as none, and bring the system's roots in.
    if (rootCa !== undefined && !rootCa.includes('-----BEGIN CERTIFICATE-----'))
      throw new CulvertError('TLS', 'the root certificates given hold no certificate')
    const host = url.hostname.replace(/^\[|\]$/g, '')
    this.#socket = connectTls({
      host,
      port: Number(url.port || 443),
      ...(isIP(host) === 0 && { servername: host }),
      ...(rootCa !== undefined && { ca: rootCa }),
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['h2'],
    })
    const session = http2.connect(url.origin, {
      createConnection: () => this.#socket,
      settings: { enablePush: false, initialWindowSize: WINDOW_BYTES },
    })
    this.#session = session
    // For the session's whole life: a late error without a listener would end the process.
    session.on('error', err => (this.#failure ??= this.#named(err)))

    const connected = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<never>()
    this.#connected = connected.promise
    this.ended = ended.promise
    this.#connected.catch(() => undefined)
    this.ended.catch(() => undefined)
    this.#ended = failure => {
      for (const timer of this.#timers) clearTimeout(timer)
      connected.reject(failure)
      ended.reject(failure)
    }
    session.on('close', () =>
      this.#ended(this.#failure ?? new CulvertError('CLOSED', 'the server closed the connection')),
    )
    const connectTimer = setTimeout(
      () => this.#fail(new CulvertError('TIMEOUT', `no connection within ${connectTimeoutMs} ms`)),
      connectTimeoutMs,
    )
    this.#timers.add(connectTimer)
    session.on('connect', () => {
      clearTimeout(connectTimer)
      this.#isConnected = true
      session.setLocalWindowSize(WINDOW_BYTES * 4)
      this.#timers.add(setInterval(() => this.#ping(options.pingTimeoutMs), pingIntervalMs))
      connected.resolve()
    })
  }

  /** Why the connection broke, if it did. */
  get failure(): CulvertError | undefined {
    return this.#failure
  }

  async request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: Omit<http2.ClientSessionRequestOptions, 'signal'>,
  ): Promise<http2.ClientHttp2Stream> {
    await this.#connected
    const stream = this.#session.request({ ...headers, ':method': method, ':path': path }, options)
    // Whoever asked listens too, but only some turns of the event loop later.
    stream.on('error', () => undefined)
    return stream
  }

  /** Nothing to do: pings are sent whether or not data arrives. */
  notifyResponseByteRead(): void {}

  close(): void {
    this.#fail(new CulvertError('CLOSED', 'the connection was closed by this side'))
  }

  #ping(timeoutMs: number): void {
    if (this.#session.destroyed || this.#session.closed) return
    const timer = setTimeout(
      () => this.#fail(new CulvertError('TIMEOUT', `the server has not answered a ping for ${timeoutMs} ms`)),
      timeoutMs,
    )
    this.#timers.add(timer)
    this.#session.ping(() => {
      clearTimeout(timer)
      this.#timers.delete(timer)
    })
  }

  #named(err: Error): CulvertError {
    if (err instanceof CulvertError) return err
    const { host } = new URL(this.authority)
    if (this.#isConnected)
      return new CulvertError('CLOSED', `the connection to ${host} was lost`, { cause: err })
    // What the kernel says carries the name of the call that failed; what TLS says does not.
    const code = 'syscall' in err ? 'UNREACHABLE' : 'TLS'
    return new CulvertError(code, `no connection to ${host}`, { cause: err })
  }

  #fail(err: CulvertError): void {
    this.#failure ??= err
    this.#session.destroy(this.#failure)
    if (this.#isConnected) return
    // A session waits for the connection that it is to be on, however long nobody answers there.
    this.#socket.destroy()
    this.#ended(this.#failure)
  }
}
