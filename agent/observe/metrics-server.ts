/** The Prometheus port: `/metrics` and, as the field's own scrape annotations say, `/stats/prometheus`. */
import type { Logger } from '../../lib/log.ts'
import { HttpService, type HttpRoute } from './http-service.ts'

export interface MetricsServerOptions {
  metrics: { readonly contentType: string; text(): Promise<string> }
  log: Logger
  /** On every address; 0 means any. */
  port: number
}

export class MetricsServer {
  readonly #port: number
  readonly #service: HttpService

  constructor({ metrics, log, port }: MetricsServerOptions) {
    this.#port = port
    const route = (path: string): HttpRoute => ({
      method: 'GET',
      path,
      handle: async () => ({ body: await metrics.text(), contentType: metrics.contentType }),
    })
    this.#service = new HttpService({ routes: [route('/metrics'), route('/stats/prometheus')], log })
  }

  /** Gives the port. */
  start(): Promise<number> {
    return this.#service.listen(this.#port)
  }

  close(): Promise<void> {
    return this.#service.close()
  }
}
