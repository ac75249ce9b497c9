/**
 * The discovery client: one delta ADS stream, kept for ever. It ends by its signal alone; whatever else ends a
 * stream is written down, waited off and tried again, and meanwhile the agent goes on with what it knows.
 * Tokens are read for each stream, are sent, and go nowhere else.
 */
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { Backoff, type BackoffOptions } from '../../lib/backoff.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { AggregatedDiscoveryService } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { RequestQueue } from './request-queue.ts'
import type { ResourceKind } from './resource-kind.ts'
import { DiscoverySession } from './session.ts'
import { Subscription, type DeltaRequest, type SubscriptionCounters } from './subscription.ts'

/** A stream that lived this long was a good one: the next try after it comes at once. */
const GOOD_STREAM_MS = 10_000
const MAX_WAITING_REQUESTS = 1000

/** Who asks: the server chooses what to tell by it. */
export interface DiscoveryNode {
  readonly ip: string
  readonly podName: string
  readonly podNamespace: string
  /** @default 'cluster.local' */
  readonly clusterDomain?: string
  /** Facts by name (`NODE_NAME`, `CLUSTER_ID`, …). */
  readonly metadata?: Readonly<Record<string, string>>
}

export interface DiscoveryOptions {
  /** https. The server's certificate must hold its host name. */
  url: URL
  node: DiscoveryNode
  /** What to subscribe to, in this order. */
  kinds: readonly ResourceKind[]
  /** The bearer token, read for each stream; undefined means that none is sent. */
  token: () => Promise<string | undefined>
  /** PEM of the roots the server is verified against, read for each stream; undefined means the system's. */
  rootCa: () => Promise<string | undefined>
  log: Logger
  /** Called each time that a stream stands: the server is there, or there again. */
  onConnected?: () => void
  backoff?: BackoffOptions
  /** @default 10000 */
  connectTimeoutMs?: number
  /** @default 10000 */
  pingIntervalMs?: number
  /** @default 10000 */
  pingTimeoutMs?: number
  /** Most bytes of one response. @default 200 MiB */
  maxResponseBytes?: number
  /** Most bytes with which a reconnect tells what is held; servers refuse requests of a few MiB. @default 900 KiB */
  maxRequestBytes?: number
  /** How long without a response means that the first full picture is complete. @default 300 */
  settleMs?: number
  /** How long without a response means that what the server has not named after a reconnect is gone. @default 2000 */
  quietMs?: number
}

export interface DiscoveryState {
  readonly isConnected: boolean
  /** Unix time in milliseconds; undefined before the first. */
  readonly lastMessageAtMs: number | undefined
  readonly connectedSinceMs: number | undefined
  /** Streams begun. */
  readonly streams: number
  /**
   * Ended streams by why: a gRPC code in small letters and dashes, or `closed`, `unreachable`, `tls`, `timeout`,
   * `token`, `root-ca`.
   */
  readonly terminations: Readonly<Record<string, number>>
  readonly lastError: string | undefined
  /** By type URL. */
  readonly types: Readonly<Record<string, SubscriptionCounters & { held: number; isSettled: boolean }>>
}

/** One for each mesh: which resources are held, in which version, is remembered here from stream to stream. */
export class Discovery {
  readonly #options: Required<DiscoveryOptions>
  readonly #log: Logger
  readonly #subscriptions: ReadonlyMap<string, Subscription>
  readonly #terminations: Record<string, number> = {}
  #connectedSinceMs: number | undefined
  #lastMessageAtMs: number | undefined
  #lastError: string | undefined
  #streams = 0

  constructor(options: DiscoveryOptions) {
    this.#options = {
      backoff: {},
      onConnected: () => undefined,
      connectTimeoutMs: 10_000,
      pingIntervalMs: 10_000,
      pingTimeoutMs: 10_000,
      maxResponseBytes: 200 * 1024 * 1024,
      maxRequestBytes: 900 * 1024,
      settleMs: 300,
      quietMs: 2000,
      ...options,
    }
    const { kinds, maxRequestBytes, settleMs, quietMs, log } = this.#options
    const common = { maxRequestBytes, settleMs, quietMs, log }
    this.#log = log
    this.#subscriptions = new Map(kinds.map(kind => [kind.typeUrl, new Subscription({ kind, ...common })]))
  }

  /** Keeps a stream until the signal aborts. Rejects only on a setting that can never work (`CONFIG`). */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#options.url.protocol !== 'https:')
      throw new CulvertError(
        'CONFIG',
        `the discovery server's address must be https: ${this.#options.url.origin}`,
      )
    const backoff = new Backoff(this.#options.backoff)
    while (!signal.aborted) {
      const startedMs = performance.now()
      let reason = 'closed'
      try {
        await this.#stream(signal)
        this.#lastError = 'the server ended the stream'
      } catch (err) {
        reason = reasonOf(err)
        this.#lastError = errorText(err)
      }
      this.#connectedSinceMs = undefined
      if (signal.aborted) break
      this.#terminations[reason] = (this.#terminations[reason] ?? 0) + 1
      this.#log.warn(
        { server: this.#options.url.host, reason, error: this.#lastError },
        'discovery stream ended',
      )
      if (performance.now() - startedMs >= GOOD_STREAM_MS) backoff.reset()
      await backoff.wait(signal)
    }
  }

  state(): DiscoveryState {
    return {
      isConnected: this.#connectedSinceMs !== undefined,
      lastMessageAtMs: this.#lastMessageAtMs,
      connectedSinceMs: this.#connectedSinceMs,
      streams: this.#streams,
      terminations: { ...this.#terminations },
      lastError: this.#lastError,
      types: Object.fromEntries(
        [...this.#subscriptions].map(([typeUrl, subscription]) => {
          const { counters, size, isSettled } = subscription
          return [typeUrl, { ...counters, held: size, isSettled }]
        }),
      ),
    }
  }

  async #stream(signal: AbortSignal): Promise<void> {
    const { url, connectTimeoutMs, pingIntervalMs, pingTimeoutMs, maxResponseBytes } = this.#options
    const headers = await this.#headers()
    const rootCa = await this.#rootCa()
    const session = new DiscoverySession({ url, rootCa, connectTimeoutMs, pingIntervalMs, pingTimeoutMs })
    const stop = new AbortController()
    const abort = () => stop.abort(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    session.ended.catch(err => stop.abort(err))
    if (signal.aborted) abort()
    const requests = new RequestQueue<DeltaRequest>(MAX_WAITING_REQUESTS)
    this.#streams++
    try {
      const transport = createGrpcTransport({
        baseUrl: url.origin,
        sessionManager: session,
        readMaxBytes: maxResponseBytes,
        acceptCompression: [],
      })
      this.#subscribe(requests)
      const responses = createClient(AggregatedDiscoveryService, transport).deltaAggregatedResources(
        requests,
        {
          headers,
          signal: stop.signal,
          onHeader: () => this.#connected(),
        },
      )
      const unknown = new Set<string>()
      for await (const response of responses) {
        this.#connected()
        this.#lastMessageAtMs = Date.now()
        const subscription = this.#subscriptions.get(response.typeUrl)
        if (subscription) requests.push(await subscription.take(response, stop.signal))
        else this.#warnOfUnknown(response.typeUrl, unknown)
      }
    } catch (err) {
      // Why the connection broke says more than what that did to the stream.
      throw session.failure ?? err
    } finally {
      signal.removeEventListener('abort', abort)
      requests.close()
      for (const subscription of this.#subscriptions.values()) subscription.end()
      stop.abort()
      session.close()
    }
  }

  #subscribe(requests: RequestQueue<DeltaRequest>): void {
    const { ip, podName, podNamespace, clusterDomain = 'cluster.local', metadata = {} } = this.#options.node
    const node = {
      id: `ztunnel~${ip}~${podName}.${podNamespace}~${podNamespace}.svc.${clusterDomain}`,
      metadata: { ...metadata },
    }
    for (const subscription of this.#subscriptions.values()) {
      const update = () => subscription.update()
      requests.push({ node, ...subscription.begin(() => requests.offer(update)) })
    }
  }

  async #headers(): Promise<Record<string, string>> {
    let token: string | undefined
    try {
      token = (await this.#options.token())?.trim()
    } catch (err) {
      throw new StreamError('token', `the token could not be read: ${errorText(err)}`)
    }
    if (token === undefined) return {}
    // Checked here, because a header's own check would print it.
    if (!/^[\x21-\x7e]+$/.test(token))
      throw new StreamError('token', 'the token is empty or not one word of ASCII')
    return { authorization: `Bearer ${token}` }
  }

  async #rootCa(): Promise<string | undefined> {
    try {
      return await this.#options.rootCa()
    } catch (err) {
      throw new StreamError('root-ca', `the root certificates could not be read: ${errorText(err)}`)
    }
  }

  #connected(): void {
    if (this.#connectedSinceMs !== undefined) return
    this.#connectedSinceMs = Date.now()
    this.#log.info({ server: this.#options.url.host }, 'discovery stream is open')
    for (const subscription of this.#subscriptions.values()) subscription.opened()
    this.#options.onConnected()
  }

  #warnOfUnknown(typeUrl: string, known: Set<string>): void {
    if (known.has(typeUrl) || known.size >= 10) return
    known.add(typeUrl)
    this.#log.warn({ type: typeUrl.slice(0, 200) }, 'the server sent a type that was not asked for')
  }
}

class StreamError extends CulvertError {
  readonly reason: string

  constructor(reason: string, message: string) {
    super('DISCOVERY', message)
    this.reason = reason
  }
}

/** A short word of a bounded set, for metrics. */
function reasonOf(err: unknown): string {
  if (err instanceof StreamError) return err.reason
  if (err instanceof CulvertError) return err.code.toLowerCase()
  const code = Code[ConnectError.from(err).code] ?? 'Unknown'
  return code.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase()
}
