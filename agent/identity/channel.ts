/**
 * One HTTP/2 session to the ca-server (or an istiod) that every call of the agent shares. It is made when first needed
 * and again after it broke; the roots are read anew each time, so a rotated root needs no restart. Always TLS: there is
 * no plain way in, and an unreadable root never falls back to the roots of the system.
 */
import { isIP } from 'node:net'
import { connect as tlsConnect, type TLSSocket } from 'node:tls'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import type { Interceptor, Transport } from '@connectrpc/connect'
import { CulvertError, errorText } from '../../lib/errors.ts'

export interface ChannelOptions {
  /** `https://host:port`. */
  url: URL
  /** The PEM roots that the server is verified against; called for each new connection. */
  roots: () => string
  /** Name that the server's certificate must carry, when it is not the URL's host. */
  serverName?: string | undefined
  /** TCP and TLS together. @default 5000 */
  connectTimeoutMs?: number
  /** Between two pings while calls are open. @default 30000 */
  pingIntervalMs?: number
  /** How long a ping may go unanswered. @default 10000 */
  pingTimeoutMs?: number
}

// An answer is a few certificates; anything much larger is not one.
const MOST_ANSWER_BYTES = 1024 * 1024
// Renewals and reports are often minutes apart; a session may wait that long for the next.
const IDLE_MS = 10 * 60_000

interface Session {
  readonly manager: Http2SessionManager
  readonly transport: Transport
  calls: number
}

export class Channel {
  /** `host:port`, for messages. */
  readonly peer: string
  readonly #options: Required<Omit<ChannelOptions, 'serverName'>> & Pick<ChannelOptions, 'serverName'>
  #session: Session | undefined
  #connections = 0
  #isClosed = false

  /** Throws `CONFIG` when the URL is not https. */
  constructor(options: ChannelOptions) {
    if (options.url.protocol !== 'https:')
      throw new CulvertError('CONFIG', `'${options.url.href}' is not an https URL`, {
        hint: 'tokens and certificates only ever travel over TLS',
      })
    this.#options = { connectTimeoutMs: 5000, pingIntervalMs: 30_000, pingTimeoutMs: 10_000, ...options }
    this.peer = options.url.host
  }

  /** Connections that were begun so far: when it has risen, the server may be another than before. */
  get connections(): number {
    return this.#connections
  }

  /** For one call. Throws `CLOSED` after `close()`. */
  get transport(): Transport {
    if (this.#isClosed) throw new CulvertError('CLOSED', `the channel to ${this.peer} is closed`)
    this.#session ??= this.#open()
    return this.#session.transport
  }

  /**
   * Says that a call on `transport` was swallowed: the next call makes a new session, those on the old one may finish.
   * Says nothing new when another call has said so already.
   */
  distrust(transport: Transport): void {
    const session = this.#session
    if (session?.transport !== transport) return
    this.#session = undefined
    if (session.calls === 0) session.manager.abort()
  }

  /** Ends the session and the calls on it. */
  close(): void {
    this.#isClosed = true
    this.#session?.manager.abort()
    this.#session = undefined
  }

  #open(): Session {
    const { url, pingIntervalMs, pingTimeoutMs } = this.#options
    const manager = new Http2SessionManager(
      url,
      { pingIntervalMs, pingTimeoutMs, idleConnectionTimeoutMs: IDLE_MS },
      { createConnection: () => this.#connect() },
    )
    const counted: Interceptor = next => async request => {
      session.calls++
      try {
        return await next(request)
      } finally {
        session.calls--
        if (session.calls === 0 && session !== this.#session) manager.abort()
      }
    }
    const transport = createGrpcTransport({
      baseUrl: url.origin,
      sessionManager: manager,
      acceptCompression: [],
      readMaxBytes: MOST_ANSWER_BYTES,
      interceptors: [counted],
    })
    const session: Session = { manager, transport, calls: 0 }
    return session
  }

  #connect(): TLSSocket {
    const { url, serverName, connectTimeoutMs } = this.#options
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
    const name = serverName ?? host
    this.#connections++
    const socket = tlsConnect({
      host,
      port: Number(url.port || 443),
      ca: this.#readRoots(),
      ALPNProtocols: ['h2'],
      minVersion: 'TLSv1.2',
      ...(isIP(name) ? {} : { servername: name }),
    })
    const timer = setTimeout(() => {
      socket.destroy(
        new CulvertError('TIMEOUT', `no TLS connection to ${this.peer} within ${connectTimeoutMs} ms`),
      )
    }, connectTimeoutMs)
    socket.once('secureConnect', () => {
      clearTimeout(timer)
      if (socket.alpnProtocol !== 'h2')
        socket.destroy(new CulvertError('PROTOCOL', `${this.peer} does not speak HTTP/2 over TLS`))
    })
    socket.once('close', () => clearTimeout(timer))
    socket.on('error', () => undefined) // the HTTP/2 session hears it too, and tells whoever called
    return socket
  }

  #readRoots(): string {
    let roots: string
    try {
      roots = this.#options.roots()
    } catch (err) {
      throw new CulvertError('CONFIG', `the roots for ${this.peer} cannot be read: ${errorText(err)}`, {
        cause: err,
      })
    }
    // Node takes an empty text for "the roots of the system".
    if (!roots.includes('-----BEGIN CERTIFICATE-----'))
      throw new CulvertError('CONFIG', `the roots for ${this.peer} hold no certificate`)
    return roots
  }
}

/** Reads the bearer token for a call. Throws `CA` when there is none or it cannot go into a header. */
export async function bearer(token: () => string | Promise<string>): Promise<string> {
  let text: string
  try {
    text = (await token()).trim()
  } catch (err) {
    throw new CulvertError('CA', `the agent's token cannot be read: ${errorText(err)}`, { cause: err })
  }
  if (!/^[\x21-\x7e]+$/.test(text))
    throw new CulvertError('CA', "the agent's token is empty or is not a token", {
      hint: 'look at the projected service-account token that the agent is given',
    })
  return `Bearer ${text}`
}
