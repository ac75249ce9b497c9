/**
 * The service port: TLS, HTTP/2 (and HTTP/1.1 for a plain curl), and everything that strangers may do to it.
 * Whatever arrives, the answer is a line in the log, a number, and at worst a closed connection.
 */
import { once } from 'node:events'
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { createContextValues, type ConnectRouter } from '@connectrpc/connect'
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node'
import { CulvertError, errorCode, errorText } from '../lib/errors.ts'
import type { Logger } from '../lib/log.ts'
import type { ServingCertificate } from './authority/authority.ts'
import { PROVEN } from './calls.ts'
import { LogLimit } from './log-limit.ts'
import type { Metrics } from './metrics.ts'

export interface ListenerOptions {
  readonly port: number
  /** @default every address, IPv6 and IPv4 */
  readonly address: string | undefined
  readonly certificate: ServingCertificate
  readonly router: ConnectRouter
  readonly metrics: Metrics
  readonly log: Logger
  /** @default as below */
  readonly timeouts?: Partial<ListenerTimeouts>
}

/** Milliseconds. */
export interface ListenerTimeouts {
  /** From the connection to the end of the TLS handshake. */
  readonly handshakeMs: number
  /** How often sessions are looked after: ended when they are idle, else sent a PING. */
  readonly sweepMs: number
  /** A peer that has not answered one for so long is gone. */
  readonly pongMs: number
  /** A session whose caller has proved nothing may be idle this long. */
  readonly strangerIdleMs: number
  /** An agent's session rests between renewals. */
  readonly agentIdleMs: number
}

const TIMEOUTS: ListenerTimeouts = {
  handshakeMs: 10_000,
  sweepMs: 30_000,
  pongMs: 20_000,
  strangerIdleMs: 30_000,
  agentIdleMs: 15 * 60_000,
}
const MAX_CONNECTIONS = 10_000
// Options of the HTTP/1.1 side, which the types of the HTTP/2 server leave out.
const HTTP1_TIMEOUTS = { headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 5000 }
/** Time for a client to end a request that has been answered. */
const LINGER_MS = 5000

interface SessionState {
  open: number
  idleSinceMs: number
  isProven: boolean
  /** Since when a PING has had no answer. */
  pingedAtMs: number | undefined
}

type Handler = ConnectRouter['handlers'][number]

export class Listener {
  readonly #options: ListenerOptions
  readonly #handlers: ReadonlyMap<string, Handler>
  readonly #server: Http2SecureServer
  readonly #sessions = new Map<ServerHttp2Session, SessionState>()
  readonly #sockets = new Set<Socket>()
  readonly #limit: LogLimit
  readonly #timeouts: ListenerTimeouts
  #sweeper: NodeJS.Timeout | undefined

  private constructor(options: ListenerOptions) {
    this.#options = options
    this.#limit = new LogLimit(options.log)
    this.#timeouts = { ...TIMEOUTS, ...options.timeouts }
    this.#handlers = new Map(options.router.handlers.map(handler => [handler.requestPath, handler]))
    this.#server = createSecureServer({
      ...secureOptions(options.certificate),
      allowHTTP1: true,
      handshakeTimeout: this.#timeouts.handshakeMs,
      settings: {
        maxConcurrentStreams: 256,
        initialWindowSize: 256 * 1024,
        maxHeaderListSize: 32 * 1024,
        enablePush: false,
      },
      maxHeaderListPairs: 128,
      ...HTTP1_TIMEOUTS,
    })
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#listenToStrangers()
  }

  /** Listens. Throws `CONFIG` when the port cannot be had. */
  static async open(options: ListenerOptions): Promise<Listener> {
    const listener = new Listener(options)
    const server = listener.#server
    server.listen({ port: options.port, ...(options.address !== undefined && { host: options.address }) })
    try {
      await once(server, 'listening')
    } catch (err) {
      throw new CulvertError('CONFIG', `cannot listen on port ${options.port}`, { cause: err })
    }
    server.on('error', err => options.log.error({ err: errorText(err) }, 'service port failed'))
    // After what has come in has been read: of a process that stood still, every peer's answer is late.
    listener.#sweeper = setInterval(() => setImmediate(() => listener.#sweep()), listener.#timeouts.sweepMs)
    return listener
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Serves with another certificate from the next handshake on. */
  useCertificate(certificate: ServingCertificate): void {
    this.#server.setSecureContext(secureOptions(certificate))
  }

  /** Takes no more connections, lets calls end that do within `graceMs`, cuts the rest. */
  async close(graceMs: number): Promise<void> {
    clearInterval(this.#sweeper)
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const session of this.#sessions.keys()) session.close()
    const cut = setTimeout(() => {
      for (const session of this.#sessions.keys()) session.destroy()
      for (const socket of this.#sockets) socket.destroy()
    }, graceMs)
    await closed
    clearTimeout(cut)
  }

  #listenToStrangers(): void {
    const server = this.#server
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.setKeepAlive(true, 60_000)
      socket.on('error', err => this.#rejected('socket', err, socket))
      socket.once('close', () => this.#sockets.delete(socket))
    })
    server.on('drop', () => this.#rejected('too-many-connections', undefined, undefined))
    server.on('sessionError', (err, session) => this.#rejected('http2', err, session?.socket))
    server.on('unknownProtocol', socket => {
      this.#rejected('alpn', undefined, socket)
      socket.destroy()
    })
    // Failed handshakes and failed HTTP/1.1 alike; the types know only TLS's event.
    server.on('clientError' as 'tlsClientError', (err: Error, socket: TLSSocket) => {
      this.#rejected(errorCode(err)?.startsWith('HPE_') ? 'http1' : 'tls', err, socket)
      socket.destroy()
    })
    server.on('session', session => this.#attend(session))
    server.on('request', (request, response) => this.#serve(request, response))
  }

  #rejected(cause: string, err: unknown, socket: Pick<Socket, 'remoteAddress'> | undefined): void {
    // A peer that goes away is no offence, whatever it interrupts.
    const code = errorCode(err)
    if (code === 'ECONNRESET' || code === 'EPIPE') return
    this.#options.metrics.rejectedConnections.inc({ cause })
    this.#limit.warn(
      cause,
      { cause, peer: peerOf(socket), err: err && errorText(err) },
      'connection rejected',
    )
  }

  #attend(session: ServerHttp2Session): void {
    const state = { open: 0, idleSinceMs: performance.now(), isProven: false, pingedAtMs: undefined }
    this.#sessions.set(session, state)
    this.#options.metrics.connections.set(this.#sessions.size)
    session.on('stream', stream => {
      state.open++
      stream.once('close', () => {
        state.open--
        state.idleSinceMs = performance.now()
      })
    })
    session.once('close', () => {
      this.#sessions.delete(session)
      this.#options.metrics.connections.set(this.#sessions.size)
    })
  }

  /** Ends idle sessions, and those whose peer has gone without a word. */
  #sweep(): void {
    const { pongMs, strangerIdleMs, agentIdleMs } = this.#timeouts
    const nowMs = performance.now()
    for (const [session, state] of this.#sessions) {
      const idleMs = state.open > 0 ? 0 : nowMs - state.idleSinceMs
      if (state.pingedAtMs !== undefined && nowMs - state.pingedAtMs > pongMs) {
        this.#options.log.debug({ peer: peerOf(session.socket) }, 'peer does not answer, session dropped')
        session.destroy()
      } else if (idleMs > (state.isProven ? agentIdleMs : strangerIdleMs)) session.close()
      else if (state.pingedAtMs === undefined && !session.closed && !session.destroyed) {
        // One at a time: the queue of pings is never full.
        state.pingedAtMs = nowMs
        session.ping(() => (state.pingedAtMs = undefined))
      }
    }
  }

  #serve(request: Http2ServerRequest, response: Http2ServerResponse): void {
    const ignore = (): void => undefined // what ends a request early is told by its signal
    request.on('error', ignore)
    response.on('error', ignore)
    const isHttp2 = request.httpVersionMajor === 2
    if (isHttp2) this.#endLate(response)
    const handler = this.#handlers.get(request.url.split('?', 1)[0]!)
    if (!handler) {
      response.writeHead(404, { 'content-type': 'text/plain' })
      response.end('no such call\n')
      return
    }
    const values = createContextValues()
    const state = isHttp2 ? this.#sessions.get(request.stream.session as ServerHttp2Session) : undefined
    values.set(PROVEN, () => {
      if (state) state.isProven = true
    })
    let call: ReturnType<typeof universalRequestFromNodeRequest>
    try {
      call = universalRequestFromNodeRequest(request, response, undefined, values)
    } catch (err) {
      this.#rejected('request', err, request.socket)
      response.writeHead(400)
      response.end()
      return
    }
    handler(call)
      .then(answer => universalResponseToNodeResponse(answer, response))
      .catch((err: unknown) => {
        this.#options.log.debug({ call: handler.method.name, err: errorText(err) }, 'call not answered')
        if (!response.writableEnded) response.destroy()
      })
  }

  /** A refused call is answered before its body is read: the client may not keep the stream open for ever. */
  #endLate({ stream }: Http2ServerResponse): void {
    stream.once('finish', () => {
      const timer = setTimeout(() => stream.close(), LINGER_MS)
      stream.once('close', () => clearTimeout(timer))
    })
  }
}

function secureOptions({ key, chain }: ServingCertificate) {
  return { key, cert: chain, minVersion: 'TLSv1.2' as const }
}

function peerOf(socket: Pick<Socket, 'remoteAddress'> | undefined): string | undefined {
  try {
    return socket?.remoteAddress
  } catch {
    return undefined // the socket of a session that is gone throws at every property
  }
}
