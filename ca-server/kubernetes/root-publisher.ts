/**
 * The roots of trust in a ConfigMap, for the agents that mount it and everybody else who must trust this server. The
 * replica that leads keeps it true whoever edits it; the others only create it when it is missing, so that replicas
 * whose files are renewed one after the other do not overwrite each other.
 */
import { Backoff } from '../../lib/backoff.ts'
import { errorText } from '../../lib/errors.ts'
import { textAt, valueAt } from '../../lib/json.ts'
import type { Logger } from '../../lib/log.ts'
import type { ApiClient } from './api-client.ts'
import { LABELS, ROOT_KEY } from './names.ts'
import { parentOf, path } from './paths.ts'
import { hasStatus, waitAfter } from './persist.ts'

export interface RootPublisherOptions {
  readonly api: ApiClient
  readonly namespace: string
  readonly configMap: string
  /** PEM, one certificate each. */
  readonly roots: () => readonly string[]
  readonly isLeading: () => boolean
  readonly log: Logger
  /** How often what is published is looked at, milliseconds. @default 60000 */
  readonly checkMs?: number
}

const LIMITS = { silenceMs: 10_000, maxBytes: 2 * 1024 * 1024 }

export class RootPublisher {
  readonly #options: RootPublisherOptions
  readonly #path: string
  #wake = Promise.withResolvers<void>()

  constructor(options: RootPublisherOptions) {
    this.#options = options
    this.#path = path.configMap(options.namespace, options.configMap)
  }

  /** Looks now: the roots have changed, or this replica leads. */
  look(): void {
    this.#wake.resolve()
  }

  /** Publishes until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, checkMs = 60_000 } = this.#options
    const backoff = new Backoff({ firstMs: 500, maxMs: 30_000 })
    signal.addEventListener('abort', () => this.look(), { once: true })
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers()
      try {
        await this.#publish(signal)
        backoff.reset()
      } catch (err) {
        if (signal.aborted) return
        log.warn({ config_map: this.#path, err: errorText(err) }, 'roots not published, trying again')
        await waitAfter(err, backoff, signal)
        continue
      }
      const timer = setTimeout(() => this.look(), checkMs)
      await this.#wake.promise
      clearTimeout(timer)
    }
  }

  async #publish(signal: AbortSignal): Promise<void> {
    const { api, namespace, configMap, roots, isLeading, log } = this.#options
    const text = roots().join('')
    const data = { [ROOT_KEY]: text }
    const present = await api.get(this.#path, {}, LIMITS, signal).catch((err: unknown) => {
      if (hasStatus(err, 404)) return undefined
      throw err
    })
    if (present === undefined) {
      const metadata = { name: configMap, namespace, labels: LABELS }
      const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data }
      await api.change('POST', parentOf(this.#path), object, LIMITS, signal)
    } else if (textAt(valueAt(present, 'data'), ROOT_KEY) === text || !isLeading()) return
    else await api.change('PATCH', this.#path, { data }, LIMITS, signal)
    log.info({ config_map: `${namespace}/${configMap}`, roots: roots().length }, 'roots published')
  }
}
