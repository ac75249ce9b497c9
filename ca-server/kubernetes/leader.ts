/**
 * Which of several replicas does what only one may do: the one that holds a Lease (coordination.k8s.io/v1), as other
 * controllers do it, with their times. Rules:
 *
 * - whoever could not renew for `renewDeadlineMs` leads no more, sooner than anybody else may take over, and whether
 *   or not a request still hangs;
 * - others judge a holder by when they saw it renew last, on their own clock: nobody's clock need be right;
 * - whoever stops gives the lease back, so that the next one need not wait for its end.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import { textAt, valueAt } from '../../lib/json.ts'
import type { Logger } from '../../lib/log.ts'
import type { ApiClient } from './api-client.ts'
import { LABELS } from './names.ts'
import { parentOf, path } from './paths.ts'
import { hasStatus } from './persist.ts'

export interface LeaderOptions {
  readonly api: ApiClient
  readonly namespace: string
  readonly lease: string
  /** Of this replica; what tells one start of it from the next is added. */
  readonly podName: string
  readonly log: Logger
  /** @default as client-go's */
  readonly times?: LeaderTimes
}

/** Milliseconds. */
export interface LeaderTimes {
  /** How long a lease lasts that is not renewed. */
  readonly leaseMs: number
  readonly renewDeadlineMs: number
  readonly retryMs: number
}

const TIMES: LeaderTimes = { leaseMs: 15_000, renewDeadlineMs: 10_000, retryMs: 2000 }
const MAX_BYTES = 256 * 1024
const RELEASE_MS = 1000

export class Leader {
  readonly identity: string
  readonly #options: LeaderOptions
  readonly #times: LeaderTimes
  readonly #path: string
  readonly #listeners = new Set<(isLeading: boolean) => void>()
  /** As the API server gave it last. */
  #lease: unknown
  /** What was seen of the holder, and when that was new, by our clock. */
  #seen = ''
  #seenAtMs = -Infinity
  #isLeading = false
  #leadsUntilMs = -Infinity
  #deadline: NodeJS.Timeout | undefined
  #complaint = ''

  constructor(options: LeaderOptions) {
    this.#options = options
    this.#times = options.times ?? TIMES
    this.#path = path.lease(options.namespace, options.lease)
    this.identity = `${options.podName}_${randomUUID()}`
  }

  /** Reports whether this replica leads right now. */
  get isLeading(): boolean {
    return this.#isLeading && performance.now() < this.#leadsUntilMs
  }

  /** Who holds the lease, as far as is known. */
  get holder(): string | undefined {
    return textAt(valueAt(this.#lease, 'spec'), 'holderIdentity')
  }

  /** Calls the listener whenever this replica begins or ceases to lead. */
  onChange(listener: (isLeading: boolean) => void): void {
    this.#listeners.add(listener)
  }

  /** Takes part until the signal aborts; ends when the lease is given back. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#try(signal)
      const jitter = 0.9 + 0.2 * Math.random()
      await sleep(this.#times.retryMs * jitter, undefined, { signal }).catch(() => undefined)
    }
    await this.#release()
  }

  async #try(signal: AbortSignal): Promise<void> {
    try {
      if (!this.#isLeading) this.#see(await this.#get(signal))
      await this.#takeOrRenew(signal).catch((err: unknown) => this.#lookAgain(err, signal))
      this.#complaint = ''
    } catch (err) {
      if (!signal.aborted) this.#complain(err)
    }
  }

  /** When somebody else has written or removed the lease, what we know of it is old. */
  async #lookAgain(err: unknown, signal: AbortSignal): Promise<void> {
    if (!hasStatus(err, 409) && !hasStatus(err, 404)) throw err
    this.#see(await this.#get(signal))
    if (this.holder === this.identity) await this.#takeOrRenew(signal)
    else this.#lead(false)
  }

  async #takeOrRenew(signal: AbortSignal): Promise<void> {
    const { leaseMs } = this.#times
    const startMs = performance.now()
    const spec = valueAt(this.#lease, 'spec')
    const { holder } = this
    const isOurs = holder === this.identity
    if (!isOurs && holder !== undefined && startMs - this.#seenAtMs < durationOf(spec, leaseMs)) return
    const now = microTime()
    const lease = {
      ...(this.#lease ?? this.#newLease()),
      spec: {
        holderIdentity: this.identity,
        leaseDurationSeconds: Math.ceil(leaseMs / 1000),
        acquireTime: isOurs ? (textAt(spec, 'acquireTime') ?? now) : now,
        renewTime: now,
        leaseTransitions: transitionsOf(spec) + (isOurs || spec === undefined ? 0 : 1),
      },
    }
    this.#see(
      this.#lease === undefined
        ? await this.#change('POST', parentOf(this.#path), lease, signal)
        : await this.#change('PUT', this.#path, lease, signal),
    )
    // From when it was asked for: others may have seen it renewed right then.
    this.#leadsUntilMs = startMs + this.#times.renewDeadlineMs
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.#lead(false), this.#leadsUntilMs - performance.now())
    if (!signal.aborted) this.#lead(true)
  }

  #newLease(): object {
    const { namespace, lease } = this.#options
    return {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: lease, namespace, labels: LABELS },
    }
  }

  #see(lease: unknown): void {
    this.#lease = lease
    const spec = valueAt(lease, 'spec')
    const seen = `${this.holder} ${String(valueAt(spec, 'renewTime'))} ${transitionsOf(spec)}`
    if (seen === this.#seen) return
    this.#seen = seen
    this.#seenAtMs = performance.now()
  }

  #lead(isLeading: boolean): void {
    if (this.#isLeading === isLeading) return
    this.#isLeading = isLeading
    const { log, lease } = this.#options
    log.info({ lease, identity: this.identity }, isLeading ? 'leading' : 'leading no more')
    for (const listener of this.#listeners) listener(isLeading)
  }

  async #release(): Promise<void> {
    clearTimeout(this.#deadline)
    this.#lead(false)
    if (this.holder !== this.identity) return
    const spec = { ...(valueAt(this.#lease, 'spec') as object), holderIdentity: '', leaseDurationSeconds: 1 }
    const lease = { ...(this.#lease as object), spec: { ...spec, renewTime: microTime() } }
    await this.#change('PUT', this.#path, lease, AbortSignal.timeout(RELEASE_MS)).catch((err: unknown) =>
      this.#options.log.debug({ err: errorText(err) }, 'lease not given back'),
    )
  }

  #get(signal: AbortSignal): Promise<unknown> {
    return this.#options.api.get(this.#path, {}, this.#limits, signal).catch((err: unknown) => {
      if (hasStatus(err, 404)) return undefined
      throw err
    })
  }

  #change(method: 'POST' | 'PUT', at: string, lease: object, signal: AbortSignal): Promise<unknown> {
    return this.#options.api.change(method, at, lease, this.#limits, signal)
  }

  get #limits() {
    return { silenceMs: this.#times.renewDeadlineMs / 2, maxBytes: MAX_BYTES }
  }

  #complain(err: unknown): void {
    const complaint = errorText(err)
    if (complaint !== this.#complaint)
      this.#options.log.warn(
        { err: complaint, lease: this.#options.lease },
        'lease neither taken nor renewed',
      )
    this.#complaint = complaint
  }
}

function durationOf(spec: unknown, otherwiseMs: number): number {
  const seconds = valueAt(spec, 'leaseDurationSeconds')
  return typeof seconds === 'number' && seconds > 0 ? seconds * 1000 : otherwiseMs
}

function transitionsOf(spec: unknown): number {
  const transitions = valueAt(spec, 'leaseTransitions')
  return typeof transitions === 'number' ? transitions : 0
}

/** The API's MicroTime. */
function microTime(): string {
  return new Date().toISOString().replace('Z', '000Z')
}
