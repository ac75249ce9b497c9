/**
 * A real HTTP server that stands in for an API server: it keeps objects with resource versions, refuses what the real
 * one refuses (a name that exists, an old version, another uid), and does whatever fault it is told to.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { ApiClient } from '../../ca-server/kubernetes/api-client.ts'

export type Json = Record<string, unknown>

export interface ApiRequest {
  readonly method: string
  readonly path: string
  readonly body: Json
}

/** `hang`: no answer; `cut`: the connection is closed instead. */
export type ApiAnswer =
  | { readonly status: number; readonly body?: Json; readonly headers?: Readonly<Record<string, string>> }
  | 'hang'
  | 'cut'

export type Fault = (request: ApiRequest) => ApiAnswer | undefined | Promise<ApiAnswer | undefined>

export class StandInApi {
  readonly requests: ApiRequest[] = []
  /** By path. */
  readonly objects = new Map<string, Json>()
  /** Asked before anything else; what it answers goes out. */
  fault: Fault = () => undefined
  readonly #server: Server
  readonly #watchers = new Set<() => void>()
  #version = 100

  private constructor(server: Server) {
    this.#server = server
  }

  static async start(t: Test): Promise<StandInApi> {
    const server = createServer((request, response) => api.serve(request, response))
    const api = new StandInApi(server)
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    t.teardown(() => {
      server.close()
      server.closeAllConnections()
    })
    return api
  }

  get url(): URL {
    return new URL(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`)
  }

  client(t: Test): ApiClient {
    const server = this.url
    const client = new ApiClient({ server, credentials: () => Promise.resolve({ tls: {}, headers: {} }) })
    t.teardown(() => client.close())
    return client
  }

  /** Puts an object there, under the path that names it. */
  put(path: string, object: Json): Json {
    const metadata = { uid: `uid-${this.#version}`, ...(object['metadata'] as Json) }
    const kept = { ...object, metadata: { ...metadata, resourceVersion: `${++this.#version}` } }
    this.objects.set(path, kept)
    return kept
  }

  /** The first time that this holds: looked at now, when a request has come and when it was answered. */
  until(isSo: () => boolean): Promise<void> {
    return new Promise(resolve => {
      const look = (): void => {
        if (!isSo()) return
        this.#watchers.delete(look)
        resolve()
      }
      this.#watchers.add(look)
      look()
    })
  }

  /** Requests by method and end of path. */
  asked(method: string, end: string): ApiRequest[] {
    return this.requests.filter(request => request.method === method && request.path.endsWith(end))
  }

  /** Answers a request that has come somewhere else. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    this.#serve(request, response).catch(() => response.destroy())
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const text = Buffer.concat(chunks).toString()
    const seen = {
      method: request.method!,
      path: request.url!.split('?')[0]!,
      body: (text === '' ? {} : JSON.parse(text)) as Json,
    }
    this.requests.push(seen)
    this.#tell()
    const answer = (await this.fault(seen)) ?? this.#answer(seen)
    if (answer === 'cut') response.destroy()
    else if (answer !== 'hang') {
      const { status, body = statusBody(status), headers } = answer
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(JSON.stringify(body))
    }
    this.#tell()
  }

  #tell(): void {
    for (const watcher of this.#watchers) watcher()
  }

  #answer({ method, path, body }: ApiRequest): ApiAnswer {
    const metadata = (body['metadata'] ?? {}) as Json
    if (method === 'POST') {
      const own = `${path}/${metadata['name'] as string}`
      return this.objects.has(own) ? { status: 409 } : { status: 201, body: this.put(own, body) }
    }
    const object = this.objects.get(path)
    if (!object) return { status: 404 }
    const kept = object['metadata'] as Json
    if (method === 'GET') return { status: 200, body: object }
    const version = metadata['resourceVersion']
    if (version !== undefined && version !== kept['resourceVersion']) return { status: 409 }
    if (metadata['uid'] !== undefined && metadata['uid'] !== kept['uid']) return { status: 409 }
    const next = method === 'PATCH' ? merge(object, body) : { ...body, metadata: { ...kept, ...metadata } }
    return { status: 200, body: this.put(path, next) }
  }
}

function statusBody(status: number): Json {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    status: 'Failure',
    code: status,
    message: `stand-in says ${status}`,
  }
}

/** RFC 7396. */
export function merge(target: unknown, patch: Json): Json {
  const merged: Json = { ...(target as Json | undefined) }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else if (typeof value === 'object' && !Array.isArray(value))
      merged[key] = merge(merged[key], value as Json)
    else merged[key] = value
  }
  return merged
}
