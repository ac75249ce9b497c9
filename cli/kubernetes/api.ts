/**
 * What the verbs ask of the API server: read, apply, delete, and no more. Each request has a limit in time; answers that
 * say "later" are tried again; everything else that is not what was asked for is an error that an operator can act on.
 */
import { request as httpsRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError } from '../../lib/errors.ts'
import { request as httpRequest, type IncomingMessage } from '../../lib/plain-http.ts'
import { printable } from '../../lib/printable.ts'
import { VERSION } from '../../lib/version.ts'
import type { Connection } from './connection.ts'
import { pathOf, type KubeObject } from './objects.ts'

export interface ApiAnswer {
  readonly status: number
  readonly text: string
}

const TIMEOUT_MS = 30_000
const PAGE = 500
const TRIES = 5
const LONGEST_WAIT_MS = 10_000
const FIELD_MANAGER = 'culvert'

/** The API server said no. */
export class RefusedError extends CulvertError {
  override name = 'RefusedError'
  readonly status: number

  constructor(message: string, status: number, hint?: string) {
    super(
      status === 401 || status === 403 ? 'DENIED' : 'KUBERNETES',
      message,
      hint === undefined ? {} : { hint },
    )
    this.status = status
  }
}

export class KubeApi {
  readonly #connection: Connection
  readonly #signal: AbortSignal

  /** The signal ends requests that are under way. */
  constructor(connection: Connection, signal: AbortSignal) {
    this.#connection = connection
    this.#signal = signal
  }

  get connection(): Connection {
    return this.#connection
  }

  /** The same with another signal: for what must be done although the first one has ended. */
  with(signal: AbortSignal): KubeApi {
    return new KubeApi(this.#connection, signal)
  }

  /** The object at a path; undefined when there is none. */
  async get<T = KubeObject>(path: string): Promise<T | undefined> {
    const answer = await this.#ask('GET', path)
    if (answer.status === 404) return undefined
    return jsonOf(this.#good(answer, `GET ${path}`), path) as T
  }

  /** Text at a path, such as a log. */
  async text(path: string): Promise<string> {
    return this.#good(await this.#ask('GET', path), `GET ${path}`)
  }

  /** All objects of a list, page by page. Where the server knows no such kind, none. */
  async list<T = KubeObject>(path: string, query: Readonly<Record<string, string>> = {}): Promise<T[]> {
    const items: T[] = []
    let token = ''
    do {
      const search = new URLSearchParams({ ...query, limit: String(PAGE), ...(token && { continue: token }) })
      const answer = await this.#ask('GET', `${path}?${search.toString()}`)
      if (answer.status === 404) return []
      const page = jsonOf(this.#good(answer, `GET ${path}`), path) as {
        items?: T[] | null
        metadata?: { continue?: string }
      }
      items.push(...(page.items ?? []))
      token = page.metadata?.continue ?? ''
    } while (token !== '')
    return items
  }

  /** Server-side apply: what is named becomes so, what others have set beside it stays. Gives the object as it is then. */
  async apply(object: KubeObject, isDryRun = false): Promise<KubeObject> {
    const search = new URLSearchParams({
      fieldManager: FIELD_MANAGER,
      force: 'true',
      fieldValidation: 'Strict',
      ...(isDryRun && { dryRun: 'All' }),
    })
    return this.#change(
      'PATCH',
      `${pathOf(object)}?${search.toString()}`,
      object,
      'application/apply-patch+yaml',
    )
  }

  /** RFC 7396: what is named replaces, null removes. Undefined when the object is not there. */
  async patch(path: string, patch: object): Promise<KubeObject | undefined> {
    try {
      return await this.#change('PATCH', path, patch, 'application/merge-patch+json')
    } catch (err) {
      if (err instanceof RefusedError && err.status === 404) return undefined
      throw err
    }
  }

  async create(object: KubeObject): Promise<KubeObject> {
    const path = pathOf(object)
    return this.#change('POST', path.slice(0, path.lastIndexOf('/')), object, 'application/json')
  }

  /** Reports whether it was there. */
  async delete(path: string, options: object = {}): Promise<boolean> {
    const answer = await this.#ask('DELETE', path, JSON.stringify(options), 'application/json')
    if (answer.status === 404) return false
    this.#good(answer, `DELETE ${path}`)
    return true
  }

  async #change(method: string, path: string, body: object, type: string): Promise<KubeObject> {
    const answer = await this.#ask(method, path, JSON.stringify(body), type)
    return jsonOf(this.#good(answer, `${method} ${path.split('?')[0]}`), path) as KubeObject
  }

  #good({ status, text }: ApiAnswer, what: string): string {
    if (status >= 200 && status < 300) return text
    throw refusal(status, text, what)
  }

  /** Tries again while the server says that it has too much to do. */
  async #ask(method: string, path: string, body?: string, type?: string): Promise<ApiAnswer> {
    for (let attempt = 1; ; attempt++) {
      const { status, text, retryAfterMs } = await this.#once(method, path, body, type)
      const isBusy = status === 429 || (status === 503 && retryAfterMs > 0)
      if (!isBusy || attempt === TRIES) return { status, text }
      await sleep(Math.min(LONGEST_WAIT_MS, Math.max(retryAfterMs, 200 * attempt)), undefined, {
        signal: this.#signal,
      })
    }
  }

  async #once(
    method: string,
    path: string,
    body: string | undefined,
    type: string | undefined,
  ): Promise<ApiAnswer & { readonly retryAfterMs: number }> {
    const { server } = this.#connection
    const options = await this.#connection.options()
    const url = new URL(server)
    const [pathname = '', search = ''] = path.split('?')
    url.pathname = `${server.pathname.replace(/\/$/, '')}${pathname}`
    url.search = search
    const headers = {
      ...(options.headers as Record<string, string>),
      accept: 'application/json',
      'user-agent': `culvert/${VERSION}`,
      ...(type !== undefined && { 'content-type': type }),
      // Node leaves it out for DELETE, and what follows would be the next request.
      ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }),
    }
    try {
      const response = await send(url, { ...options, method, headers, signal: this.#signal }, body)
      const text = await textOf(response)
      return {
        status: response.statusCode ?? 0,
        text,
        retryAfterMs: Number(response.headers['retry-after'] ?? 0) * 1000 || 0,
      }
    } catch (err) {
      this.#signal.throwIfAborted()
      throw new CulvertError('KUBERNETES', `the API server at ${server.host} cannot be reached`, {
        cause: err,
        hint: 'is this the right cluster? see kubectl config current-context',
      })
    }
  }
}

function send(url: URL, options: object, body: string | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = url.protocol === 'https:' ? httpsRequest(url, options) : httpRequest(url, options)
    request.setTimeout(TIMEOUT_MS, () =>
      request.destroy(new CulvertError('TIMEOUT', `no answer in ${TIMEOUT_MS / 1000} s`)),
    )
    request.on('error', reject)
    request.on('response', resolve)
    request.end(body)
  })
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

function jsonOf(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new CulvertError('KUBERNETES', `the answer to ${path.split('?')[0]} is not JSON`)
  }
}

function refusal(status: number, text: string, what: string): RefusedError {
  let message = ''
  try {
    const body = JSON.parse(text) as { message?: unknown }
    if (typeof body.message === 'string') message = printable(body.message, 500)
  } catch {
    message = printable(text, 200)
  }
  const hint =
    status === 401
      ? 'the cluster does not know who you are: log in again'
      : status === 403
        ? 'installing and uninstalling take cluster-admin; status and check take read access to pods, nodes and namespaces'
        : undefined
  return new RefusedError(`${what} was answered ${status}${message && `: ${message}`}`, status, hint)
}
