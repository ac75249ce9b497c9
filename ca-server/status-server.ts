/** Readiness and metrics over plain HTTP, for the kubelet and Prometheus. Nothing secret is told here. */
import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Registry } from 'prom-client'
import { CulvertError, errorText } from '../lib/errors.ts'
import type { Logger } from '../lib/log.ts'

export interface StatusOptions {
  readonly port: number
  readonly address: string | undefined
  readonly registry: Registry
  /** Names what is still waited for; none when ready. */
  readonly pending: () => readonly string[]
  readonly log: Logger
}

export class StatusServer {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  /** Listens. Throws `CONFIG` when the port cannot be had. */
  static async open(options: StatusOptions): Promise<StatusServer> {
    const server = createServer({ requestTimeout: 10_000, headersTimeout: 5000 }, (request, response) => {
      response.on('error', () => undefined)
      answer(options, request.method ?? '', request.url ?? '', response).catch((err: unknown) => {
        options.log.error({ err: errorText(err) }, 'status request failed')
        response.destroy()
      })
    })
    server.maxConnections = 100
    server.listen({ port: options.port, ...(options.address !== undefined && { host: options.address }) })
    try {
      await once(server, 'listening')
    } catch (err) {
      throw new CulvertError('CONFIG', `cannot listen on port ${options.port}`, { cause: err })
    }
    server.on('error', err => options.log.error({ err: errorText(err) }, 'status port failed'))
    return new StatusServer(server)
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }
}

async function answer(
  { registry, pending }: StatusOptions,
  method: string,
  url: string,
  response: ServerResponse,
): Promise<void> {
  const send = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
    response.writeHead(status, { 'content-type': type })
    response.end(method === 'HEAD' ? undefined : text)
  }
  if (method !== 'GET' && method !== 'HEAD') send(405, 'only GET\n')
  // That it answers is the answer.
  else if (url === '/healthz/live') send(200, 'alive\n')
  else if (url === '/healthz/ready') {
    const waiting = pending()
    if (waiting.length === 0) send(200, 'ready\n')
    else send(503, `not ready, waiting for: ${waiting.join(', ')}\n`)
  } else if (url === '/metrics') send(200, await registry.metrics(), registry.contentType)
  else send(404, 'there are /healthz/ready, /healthz/live and /metrics\n')
}
