/**
 * Requests to the API server: JSON in, JSON out, and streams of lines. Every answer is bounded, in bytes and in how
 * long it may be silent; nothing is tried again here but what met a connection that had just been closed.
 * Plain HTTP/1.1 on Node's own client: six requests need no library, and a library's informers may stop for ever.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import { VERSION } from '../../lib/version.ts'
import type { ApiAccess } from './access.ts'
import { readLines, type Line } from './lines.ts'

export type Query = Readonly<Record<string, string>>

export interface ApiLimits {
  /** How long an answer may be silent, milliseconds. */
  readonly silenceMs: number
  /** Longest answer, or longest line of one. */
  readonly maxBytes: number
}

/** The API server said no, or gave up in the middle of an answer. */
export class ApiError extends CulvertError {
  override name = 'ApiError'
  /** Of HTTP, or as the answer's Status says. */
  readonly status: number
  /** How long the server asked us to wait, milliseconds. */
  readonly retryAfterMs: number

  constructor(message: string, status: number, retryAfterMs: number) {
    super('KUBERNETES', message)
    this.status = status
    this.retryAfterMs = retryAfterMs
  }
}

/** There was no answer, or it stopped in the middle: the server cannot be reached, or has other troubles. */
export class NoAnswerError extends CulvertError {
  override name = 'NoAnswerError'
}

/** An answer was longer than it may be. */
export class TooLongError extends CulvertError {
  override name = 'TooLongError'
}

const MAX_ERROR_BYTES = 65_536
/** RFC 7396: what is named replaces, null removes, the rest stays. */
const MERGE_PATCH = 'application/merge-patch+json'
/** However long a server asks us to wait: it may have been told so by a broken clock. */
const LONGEST_RETRY_AFTER_MS = 300_000

export class ApiClient {
  readonly #access: ApiAccess
  readonly #agent: HttpAgent | HttpsAgent
  #isRefused = false

  constructor(access: ApiAccess) {
    this.#access = access
    const options = { keepAlive: true, keepAliveMsecs: 15_000 }
    this.#agent = access.server.protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options)
  }

  /** Host and port, for messages. */
  get server(): string {
    return this.#access.server.host
  }

  /** The JSON that a GET is answered with. Throws `ApiError`, `NoAnswerError`, `TooLongError`; `KUBERNETES` for what is no JSON. */
  async get(path: string, query: Query, limits: ApiLimits, signal: AbortSignal): Promise<unknown> {
    return parseJson(await this.#text('GET', path, query, undefined, limits, signal), path)
  }

  /**
   * The JSON that a request which changes something is answered with. Throws as `get` does. May be sent twice: what is
   * created must have a name, and what is replaced a resource version.
   */
  async change(
    method: 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body: object,
    limits: ApiLimits,
    signal: AbortSignal,
  ): Promise<unknown> {
    return parseJson(await this.#text(method, path, {}, JSON.stringify(body), limits, signal), path)
  }

  /** The lines of an answer as they come. Ends when the server ends it; throws as `get` does. */
  async *lines(path: string, query: Query, limits: ApiLimits, signal: AbortSignal): AsyncGenerator<Line> {
    const response = await this.#open('GET', path, query, undefined, limits, signal)
    yield* readLines(chunksOf(response, path, limits.silenceMs), limits.maxBytes)
  }

  /** Lets go of idle connections. */
  close(): void {
    this.#agent.destroy()
  }

  async #text(
    method: string,
    path: string,
    query: Query,
    body: string | undefined,
    limits: ApiLimits,
    signal: AbortSignal,
  ): Promise<string> {
    const response = await this.#open(method, path, query, body, limits, signal)
    return await textOf(response, path, limits)
  }

  async #open(
    method: string,
    path: string,
    query: Query,
    body: string | undefined,
    limits: ApiLimits,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const { tls, headers, agent = this.#agent } = await this.#access.credentials(this.#isRefused)
    const { server } = this.#access
    const url = new URL(server)
    url.pathname = `${server.pathname.replace(/\/$/, '')}${path}`
    url.search = new URLSearchParams(query).toString()
    const options: RequestOptions = {
      method,
      signal,
      agent,
      headers: {
        accept: 'application/json',
        'user-agent': `culvert-ca/${VERSION}`,
        ...headers,
        ...(body !== undefined && { 'content-type': method === 'PATCH' ? MERGE_PATCH : 'application/json' }),
      },
      ...tls,
    }
    const response = await exchange(url, options, body, limits.silenceMs)
    this.#isRefused = response.statusCode === 401
    if (response.statusCode === 200 || response.statusCode === 201) return response
    throw await refusalOf(response, `${method} ${path}`, limits.silenceMs)
  }
}

/** Sends a request; once more when the connection it was sent on turns out to have been closed before. */
async function exchange(
  url: URL,
  options: RequestOptions,
  body: string | undefined,
  silenceMs: number,
): Promise<IncomingMessage> {
  const first = await send(url, options, body, silenceMs)
  const result = 'stale' in first ? await send(url, options, body, silenceMs) : first
  if ('response' in result) return result.response
  throw new NoAnswerError('KUBERNETES', `the API server at ${url.host} cannot be reached`, {
    cause: 'stale' in result ? result.stale : result.failed,
  })
}

type Sent =
  { readonly response: IncomingMessage } | { readonly stale: unknown } | { readonly failed: unknown }

function send(url: URL, options: RequestOptions, body: string | undefined, silenceMs: number): Promise<Sent> {
  return new Promise(resolve => {
    const request = url.protocol === 'https:' ? httpsRequest(url, options) : httpRequest(url, options)
    const timer = setTimeout(
      () => request.destroy(new CulvertError('TIMEOUT', `no answer for ${silenceMs} ms`)),
      silenceMs,
    )
    request.on('error', err => {
      clearTimeout(timer)
      const isStale = request.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errorCode(err) ?? '')
      resolve(isStale ? { stale: err } : { failed: err })
    })
    request.on('response', response => {
      clearTimeout(timer)
      response.on('error', () => undefined) // whoever reads it is told
      resolve({ response })
    })
    request.end(body)
  })
}

/** What comes, until nothing has come for too long. A reader that stops before the end closes the connection. */
async function* chunksOf(
  response: IncomingMessage,
  path: string,
  silenceMs: number,
): AsyncGenerator<Uint8Array> {
  const timer = setTimeout(
    () => response.destroy(new NoAnswerError('TIMEOUT', `${path}: silent for ${silenceMs} ms`)),
    silenceMs,
  )
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      timer.refresh()
      yield chunk
    }
  } catch (err) {
    if (err instanceof CulvertError) throw err
    throw new NoAnswerError('KUBERNETES', `${path}: the answer was cut off`, { cause: err })
  } finally {
    clearTimeout(timer)
  }
}

async function textOf(response: IncomingMessage, path: string, limits: ApiLimits): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of chunksOf(response, path, limits.silenceMs)) {
    bytes += chunk.length
    if (bytes > limits.maxBytes)
      throw new TooLongError('KUBERNETES', `${path}: the answer is longer than ${limits.maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    // What the parser says quotes the text, and that may be somebody's token.
    throw new CulvertError('KUBERNETES', `${path}: the answer is not JSON`)
  }
}

async function refusalOf(response: IncomingMessage, what: string, silenceMs: number): Promise<ApiError> {
  let body: unknown
  try {
    body = JSON.parse(await textOf(response, what, { silenceMs, maxBytes: MAX_ERROR_BYTES }))
  } catch {
    body = undefined // the status says enough
  }
  const after = parseRetryAfter(response.headers['retry-after'], Date.now())
  return statusError(body, what, response.statusCode ?? 0, after)
}

/**
 * The error that a `Status` object tells of (meta/v1), as the body of an answer or an event of a watch. `status` and
 * `retryAfterMs` stand where it says nothing.
 */
export function statusError(body: unknown, what: string, status = 0, retryAfterMs = 0): ApiError {
  const fields = at(body, 'kind') === 'Status' ? body : undefined
  const code = at(fields, 'code')
  const seconds = at(at(fields, 'details'), 'retryAfterSeconds')
  const message = at(fields, 'message')
  const found = typeof code === 'number' && status === 0 ? code : status
  const why = typeof message === 'string' ? `: ${printable(message, 300)}` : ''
  const asked = typeof seconds === 'number' && seconds > 0 ? seconds * 1000 : 0
  return new ApiError(
    `${what} was answered ${found}${why}`,
    found,
    Math.min(Math.max(retryAfterMs, asked), LONGEST_RETRY_AFTER_MS),
  )
}

/** Milliseconds of a `Retry-After` header (RFC 9110 §10.2.3): seconds, or a date. 0 when it says nothing usable. */
export function parseRetryAfter(header: string | undefined, nowMs: number): number {
  if (header === undefined) return 0
  const waitMs = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - nowMs
  return waitMs > 0 ? Math.min(waitMs, LONGEST_RETRY_AFTER_MS) : 0
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined
}
