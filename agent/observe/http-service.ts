/**
 * The small HTTP server under the admin, metrics and readiness ports: exact paths, answers as values, errors as JSON.
 * Whoever connects can hold neither memory nor time: heads, bodies, connections and waits are bounded. Ports are shared
 * with SO_REUSEPORT, so that a replacement agent can start beside this one.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { CulvertError, errorText, type ErrorCode } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { claimSocketPath } from './socket-path.ts'

export interface HttpRequest {
  readonly query: URLSearchParams
  readonly body: string
}

export interface HttpAnswer {
  /** @default 200 */
  readonly status?: number
  readonly body: string
  /** @default application/json */
  readonly contentType?: string
}

export interface HttpRoute {
  readonly method: 'GET' | 'POST'
  /** Exact, begins with a slash. */
  readonly path: string
  /** One line for people; absent: the route is not listed. */
  readonly summary?: string
  readonly handle: (request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>
}

export interface HttpServiceOptions {
  routes: readonly HttpRoute[]
  log: Logger
  /** Why a request may not come in at all; undefined lets it. Asked for TCP only: a Unix socket has its file mode. */
  refuse?: (request: IncomingMessage) => string | undefined
  /** @default 64 */
  mostConnections?: number
}

const MOST_BODY_BYTES = 64 * 1024
const MOST_HEAD_BYTES = 16 * 1024
const GZIP_FROM_BYTES = 1024
const CLOSE_GRACE_MS = 1000

const compress = promisify(gzip)

// Errors that are the caller's own.
const STATUS: Partial<Record<ErrorCode, number>> = {
  INPUT: 400,
  CONFIG: 400,
  ADDRESS: 400,
  SPIFFE: 400,
  TIMEOUT: 504,
}

/** An answer of any JSON value; `bigint`s become text. */
export function json(value: unknown, status = 200): HttpAnswer {
  const body = JSON.stringify(
    value,
    (_, part: unknown) => (typeof part === 'bigint' ? part.toString() : part),
    2,
  )
  return { status, body: `${body ?? 'null'}\n` }
}

export function text(body: string, status = 200): HttpAnswer {
  return { status, body, contentType: 'text/plain; charset=utf-8' }
}

export class HttpService {
  readonly #options: Required<Omit<HttpServiceOptions, 'refuse'>> & Pick<HttpServiceOptions, 'refuse'>
  readonly #servers: Server[] = []

  constructor(options: HttpServiceOptions) {
    this.#options = { mostConnections: 64, ...options }
  }

  /** Listens on a port that others may share; 0 means any. Gives the port. Without a host: every address, IPv6 and IPv4. */
  async listen(port: number, host?: string): Promise<number> {
    const server = this.#server(true)
    await started(server, () => server.listen({ port, host, reusePort: true }))
    return (server.address() as AddressInfo).port
  }

  /** Listens on a Unix socket that only the owner may open (0600). Throws `CONFIG` when another process serves it. */
  async listenUnix(path: string): Promise<void> {
    const server = this.#server(false)
    await claimSocketPath(path)
    await started(server, () => {
      // The file is made within `listen`, in this very tick: there is no moment at which others may open it.
      const before = process.umask(0o177)
      try {
        server.listen({ path })
      } finally {
        process.umask(before)
      }
    })
  }

  /** Stops listening. Answers that are under way get a second to leave. */
  async close(): Promise<void> {
    await Promise.all(this.#servers.splice(0).map(stopped))
  }

  #server(isTcp: boolean): Server {
    const { log, mostConnections, refuse } = this.#options
    const server = createServer(
      {
        maxHeaderSize: MOST_HEAD_BYTES,
        headersTimeout: 5000,
        requestTimeout: 10_000,
        keepAliveTimeout: 5000,
        connectionsCheckingInterval: 5000,
      },
      (request, response) => void this.#answer(request, response, isTcp ? refuse?.(request) : undefined),
    )
    server.maxConnections = mostConnections
    server.timeout = 30_000 // a reader that stopped reading
    server.on('error', err => log.error({ error: errorText(err) }, 'an http port failed'))
    this.#servers.push(server)
    return server
  }

  /** Never rejects. */
  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    refusal: string | undefined,
  ): Promise<void> {
    request.on('error', () => undefined) // the caller is gone: nobody is left to tell
    response.on('error', () => undefined)
    let answer: HttpAnswer
    try {
      answer = refusal === undefined ? await this.#dispatch(request, response) : json({ error: refusal }, 403)
    } catch (err) {
      const status = (err instanceof CulvertError && STATUS[err.code]) || 500
      if (status === 500)
        this.#options.log.error({ path: request.url, error: errorText(err) }, 'a request failed')
      answer = json({ error: errorText(err) }, status)
    }
    await send(request, response, answer).catch(() => response.destroy())
  }

  async #dispatch(request: IncomingMessage, response: ServerResponse): Promise<HttpAnswer> {
    const { routes } = this.#options
    const target = request.url ?? ''
    // A base makes a path of it; the host in it means nothing.
    if (!target.startsWith('/') || !URL.canParse(target, 'http://agent'))
      return json({ error: 'the request names no path' }, 400)
    const url = new URL(target, 'http://agent')
    const here = routes.filter(route => route.path === url.pathname)
    if (here.length === 0) return json({ error: `there is nothing at ${url.pathname}` }, 404)
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const route = here.find(route => route.method === method)
    if (!route) {
      const allowed = here.map(route => route.method).join(', ')
      response.setHeader('allow', allowed)
      return json({ error: `${url.pathname} takes ${allowed}` }, 405)
    }
    const body = await readBody(request)
    if (body === undefined) return json({ error: `at most ${MOST_BODY_BYTES} bytes are read` }, 413)
    return await route.handle({ query: url.searchParams, body })
  }
}

/** Undefined when it is too long. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = []
  let length = 0
  // Leaving the loop must not destroy the socket: the answer still has to go out on it.
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MOST_BODY_BYTES) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

async function send(request: IncomingMessage, response: ServerResponse, answer: HttpAnswer): Promise<void> {
  let body = Buffer.from(answer.body)
  const takesGzip = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/.test(request.headers['accept-encoding'] ?? '')
  if (takesGzip && body.length >= GZIP_FROM_BYTES) {
    body = await compress(body, { level: 1 })
    response.setHeader('content-encoding', 'gzip')
  }
  response.writeHead(answer.status ?? 200, {
    'content-type': answer.contentType ?? 'application/json',
    'content-length': body.length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    // What was not read of a body must not be taken for the next request.
    ...(request.complete ? {} : { connection: 'close' }),
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

async function started(server: Server, listen: () => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('listening', resolve).once('error', reject)
  listen()
  try {
    await promise
  } finally {
    server.off('listening', resolve).off('error', reject)
  }
}

function stopped(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (!server.listening) return Promise.resolve()
  const timer = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
  server.close(() => {
    clearTimeout(timer)
    resolve()
  })
  return promise
}
