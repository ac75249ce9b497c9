/**
 * A real HTTP server that answers list and watch requests as a Kubernetes API server does: resource versions, pages of one
 * consistent list, bookmarks, 410 for what it has forgotten. Tests tell it what to do wrong.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { WATCHED } from '../../ca-server/kubernetes/resources.ts'
import { objectKey } from '../../ca-server/world/world.ts'
import type { KubeKind, KubeObject } from '../../lib/kube/objects.ts'
import { writeObject } from '../../lib/kube/write.ts'

type Plain = Record<string, unknown>

export interface ApiRequest {
  readonly kind: KubeKind
  readonly verb: 'list' | 'watch'
  readonly query: URLSearchParams
  readonly authorization: string | undefined
  readonly atMs: number
}

/** Answers a request in place of the server; reports whether it did. */
export type Fault = (request: ApiRequest, response: ServerResponse) => boolean

interface Event {
  readonly version: number
  readonly kind: KubeKind
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly object: Plain
}

interface Watch {
  readonly kind: KubeKind
  readonly response: ServerResponse
}

const LIST_KINDS: Partial<Record<KubeKind, string>> = { EndpointSlice: 'EndpointSliceList' }

export class ApiServer {
  readonly requests: ApiRequest[] = []
  /** Asked in turn, before the server answers itself. */
  readonly faults = new Set<Fault>()
  /** Answers what is no list and no watch. */
  other: (message: IncomingMessage, response: ServerResponse) => void = (_, response) =>
    refuse(response, 404, {})
  readonly #server: Server
  readonly #objects = new Map<string, { kind: KubeKind; object: Plain }>()
  readonly #lists = new Map<string, { items: Plain[]; version: number }>()
  readonly #watches = new Set<Watch>()
  readonly #waiting = new Set<() => void>()
  #events: Event[] = []
  #version = 1
  #forgotten = 0

  private constructor(server: Server) {
    this.#server = server
  }

  /** Listens on loopback, over TLS when there is a certificate. */
  static async start(t: Pick<Test, 'teardown'>, tls?: { key: string; cert: string }): Promise<ApiServer> {
    const server = tls ? createTlsServer(tls) : createServer()
    const api = new ApiServer(server)
    server.on('request', (request, response) => api.#answer(request, response))
    await api.listen(0)
    t.teardown(() => api.stop())
    return api
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** As of the last change. */
  get version(): number {
    return this.#version
  }

  put(...objects: KubeObject[]): void {
    for (const object of objects) this.putRaw(object.kind, objectKey(object.metadata), writeObject(object))
  }

  /** An object as it is; its resource version is the server's. */
  putRaw(kind: KubeKind, key: string, object: Plain): void {
    const place = `${kind} ${key}`
    const type = this.#objects.has(place) ? 'MODIFIED' : 'ADDED'
    const versioned = {
      ...object,
      metadata: { ...(object['metadata'] as Plain), resourceVersion: `${++this.#version}` },
    }
    this.#objects.set(place, { kind, object: versioned })
    this.#happened({ version: this.#version, kind, type, object: versioned })
  }

  /** As it is now. */
  get(kind: KubeKind, key: string): Plain | undefined {
    return this.#objects.get(`${kind} ${key}`)?.object
  }

  delete(kind: KubeKind, key: string): void {
    const place = `${kind} ${key}`
    const found = this.#objects.get(place)
    if (!found) return
    this.#objects.delete(place)
    const metadata = { ...(found.object['metadata'] as Plain), resourceVersion: `${++this.#version}` }
    this.#happened({ version: this.#version, kind, type: 'DELETED', object: { ...found.object, metadata } })
  }

  /** Forgets the past: watches from before and pages of lists from before are refused. */
  forget(): void {
    this.#forgotten = this.#version
    this.#events = []
    this.#lists.clear()
  }

  bookmark(kind: KubeKind): void {
    this.write(kind, `${bookmark(kind, this.#version)}\n`)
  }

  /** To all who watch the kind. */
  write(kind: KubeKind, text: string): void {
    for (const watch of this.#watches) if (watch.kind === kind) watch.response.write(text)
  }

  /** Ends watches in good order. */
  endWatches(kind: KubeKind): void {
    for (const watch of this.#watches) if (watch.kind === kind) watch.response.end()
  }

  /** Ends watches as a crash does. */
  cutWatches(kind: KubeKind): void {
    for (const watch of this.#watches) if (watch.kind === kind) watch.response.destroy()
  }

  /** How many watch the kind. */
  watchers(kind: KubeKind): number {
    return [...this.#watches].filter(watch => watch.kind === kind).length
  }

  /** One answer of an error to the next request that is meant. */
  failNext(
    verb: ApiRequest['verb'],
    kind: KubeKind,
    status: number,
    headers: Record<string, string> = {},
  ): void {
    const fault: Fault = (request, response) => {
      if (request.verb !== verb || request.kind !== kind) return false
      this.faults.delete(fault)
      refuse(response, status, headers)
      return true
    }
    this.faults.add(fault)
  }

  /** Ends as soon as the condition holds; it is looked at after each request and each end of a watch. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>(resolve => this.#waiting.add(resolve))
  }

  /** The requests of a verb for a kind so far. */
  asked(verb: ApiRequest['verb'], kind: KubeKind): ApiRequest[] {
    return this.requests.filter(request => request.verb === verb && request.kind === kind)
  }

  #answer(message: IncomingMessage, response: ServerResponse): void {
    response.on('error', () => undefined)
    const url = new URL(message.url ?? '/', 'http://server')
    const resource = WATCHED.find(({ path }) => path === url.pathname)
    if (!resource) {
      this.other(message, response)
      return
    }
    const request: ApiRequest = {
      kind: resource.kind,
      verb: url.searchParams.has('watch') ? 'watch' : 'list',
      query: url.searchParams,
      authorization: message.headers.authorization,
      atMs: performance.now(),
    }
    this.requests.push(request)
    if (![...this.faults].some(fault => fault(request, response))) {
      if (request.verb === 'list') this.#list(request, response)
      else this.#watch(request, response)
    }
    this.#wake()
  }

  #list({ kind, query }: ApiRequest, response: ServerResponse): void {
    const [id = '', from = '0'] = (query.get('continue') ?? '').split(':')
    if (id === '')
      this.#lists.set(`${this.requests.length}`, {
        items: [...this.#objects.values()].filter(entry => entry.kind === kind).map(({ object }) => object),
        version: this.#version,
      })
    const listId = id || `${this.requests.length}`
    const list = this.#lists.get(listId)
    if (!list) {
      refuse(response, 410, {})
      return
    }
    const end = Number(from) + Number(query.get('limit') ?? Infinity)
    const hasMore = end < list.items.length
    // Items of a list carry no kind of their own.
    const items = list.items
      .slice(Number(from), end)
      .map(item => ({ ...item, kind: undefined, apiVersion: undefined }))
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        kind: LIST_KINDS[kind] ?? `${kind}List`,
        metadata: { resourceVersion: `${list.version}`, ...(hasMore && { continue: `${listId}:${end}` }) },
        items,
      }),
    )
  }

  #watch({ kind, query }: ApiRequest, response: ServerResponse): void {
    const from = Number(query.get('resourceVersion'))
    if (from < this.#forgotten) {
      refuse(response, 410, {})
      return
    }
    response.setHeader('content-type', 'application/json')
    response.flushHeaders()
    const watch = { kind, response }
    this.#watches.add(watch)
    response.on('close', () => {
      this.#watches.delete(watch)
      this.#wake()
    })
    for (const event of this.#events) if (event.kind === kind && event.version > from) send(response, event)
  }

  #happened(event: Event): void {
    this.#events.push(event)
    for (const { kind, response } of this.#watches) if (kind === event.kind) send(response, event)
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve()
    this.#waiting.clear()
  }
}

/** A watch's event of type ERROR, as a line. */
export function errorEvent(code: number, retryAfterSeconds?: number): string {
  return `${JSON.stringify({ type: 'ERROR', object: status(code, retryAfterSeconds) })}\n`
}

function bookmark(kind: KubeKind, version: number): string {
  return JSON.stringify({ type: 'BOOKMARK', object: { kind, metadata: { resourceVersion: `${version}` } } })
}

function send(response: ServerResponse, { type, object }: Event): void {
  response.write(`${JSON.stringify({ type, object })}\n`)
}

export function refuse(response: ServerResponse, code: number, headers: Record<string, string>): void {
  response.writeHead(code, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(status(code)))
}

function status(code: number, retryAfterSeconds?: number): Plain {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    status: 'Failure',
    message: `refused with ${code}`,
    code,
    ...(retryAfterSeconds !== undefined && { details: { retryAfterSeconds } }),
  }
}
