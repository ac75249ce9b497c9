/**
 * Whether the agent can serve its node. It is ready when nothing holds it up; whatever does has a name, and the probe's
 * answer says it. Only what concerns the node as a whole belongs here: a single pod's trouble is that pod's state, and
 * must not make the node's other pods wait.
 */
import type { Logger } from '../../lib/log.ts'
import { HttpService, text } from './http-service.ts'

export class Readiness {
  readonly #pending = new Map<symbol, () => string>()
  readonly #waiters = new Set<() => void>()

  /**
   * Holds readiness up until the function that is given back is called; calling it again does nothing. What is waited for
   * may have a name that changes.
   */
  block(name: string | (() => string)): () => void {
    const key = Symbol()
    this.#pending.set(key, typeof name === 'string' ? () => name : name)
    return () => {
      if (!this.#pending.delete(key) || this.#pending.size > 0) return
      for (const wake of this.#waiters) wake()
    }
  }

  /** What is waited for, by name. */
  pending(): string[] {
    return [...new Set([...this.#pending.values()].map(name => name()))]
  }

  isReady(): boolean {
    return this.#pending.size === 0
  }

  /** Ends when nothing is waited for. Rejects with the signal's reason. */
  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.isReady()) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = () => reject(signal.reason)
    this.#waiters.add(resolve)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await promise
    } finally {
      this.#waiters.delete(resolve)
      signal.removeEventListener('abort', onAbort)
    }
  }
}

export interface ReadinessServerOptions {
  readiness: Readiness
  log: Logger
  /** On every address; 0 means any. */
  port: number
}

/** Answers the kubelet: 200 `ready`, or 503 with what is waited for. */
export class ReadinessServer {
  readonly #port: number
  readonly #service: HttpService

  constructor({ readiness, log, port }: ReadinessServerOptions) {
    this.#port = port
    const handle = () =>
      readiness.isReady()
        ? text('ready\n')
        : text(`not ready, waiting for: ${readiness.pending().join(', ')}\n`, 503)
    this.#service = new HttpService({ routes: [{ method: 'GET', path: '/healthz/ready', handle }], log })
  }

  /** Gives the port. */
  start(): Promise<number> {
    return this.#service.listen(this.#port)
  }

  close(): Promise<void> {
    return this.#service.close()
  }
}
