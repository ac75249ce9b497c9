/**
 * One key and one certificate for each pod of the node, for as long as the pod is here.
 *
 * - A certificate is fetched when the pod is first held, renewed at half of its life, and kept until its end however
 *   often renewal fails.
 * - Each pod is in at most one place: waiting for its timer, in a queue, or at the certificate service. So the queues
 *   hold at most the pods of the node.
 * - Pods that have nothing to show go before renewals, and renewals never take every place at the service.
 * - Keys are handed to `onCertificate` and to `certificate()`, and appear nowhere else: no state, no log, no error.
 */
import type { X509Certificate } from 'node:crypto'
import { Backoff } from '../../lib/backoff.ts'
import { systemClock, type Clock, type Timer } from '../../lib/clock.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { PodCertificate } from '../worker/messages.ts'
import { CaError, type CaFailure, type CertificateSource, type IssuedCertificate } from './ca-client.ts'
import { FetchQueue } from './fetch-queue.ts'
import { parseRoots, rootsText } from './roots.ts'

export interface PodIdentity {
  /** metadata.uid */
  readonly uid: string
  /** SPIFFE ID. */
  readonly identity: string
}

export interface CertificateStatus extends PodIdentity {
  /** `fetching`: never had one. `renewal-failing`: has one, the last try for the next failed. */
  readonly state: 'fetching' | 'valid' | 'renewal-failing' | 'expired'
  readonly notBeforeMs?: number | undefined
  readonly notAfterMs?: number | undefined
  /** Hexadecimal. */
  readonly serial?: string | undefined
  /** Less than a quarter of its life is left, or nothing: renewal has been failing for long. */
  readonly alarm: boolean
  /** Failed tries since the last certificate. */
  readonly failures: number
  readonly lastError?: string | undefined
  /** When the certificate service will next be asked; undefined while it is being asked. */
  readonly nextAttemptMs?: number | undefined
}

/** One try, for metrics. */
export interface FetchResult extends PodIdentity {
  readonly outcome: 'issued' | CaFailure
  readonly isRenewal: boolean
  readonly durationMs: number
}

export interface CertificateManagerOptions {
  source: CertificateSource
  log: Logger
  /** Requests under way at once. @default 8 */
  concurrency?: number
  /** Longest wait for one answer. @default 10000 */
  timeoutMs?: number
  clock?: Clock
  /** Gives 0..1, for jitter. @default Math.random */
  random?: () => number
  onFetch?: (result: FetchResult) => void
}

interface Waiter {
  readonly resolve: () => void
  readonly reject: (reason: unknown) => void
}

/** A pod and all that is known about its certificate. */
interface Holding extends PodIdentity {
  readonly cancel: AbortController
  readonly backoff: Backoff
  readonly waiters: Set<Waiter>
  issued?: IssuedCertificate
  /** From when its life is counted: when it began, or when we got it if that was later. */
  heldFromMs: number
  handed?: PodCertificate
  timer?: Timer | undefined
  nextAttemptMs?: number | undefined
  failures: number
  lastError?: string | undefined
  lastFailure?: CaFailure | undefined
}

// Half of the life, a tenth more or less, so that pods that started together do not renew together.
const RENEW_AT = 0.5
const RENEW_JITTER = 0.1
const FIRST_RETRY_MS = 500
const LONGEST_RETRY_MS = 150_000
// Whatever is left of a life, a retry is never nearer than this.
const SHORTEST_RETRY_MS = 250
const SHORTEST_TIMEOUT_MS = 1000
/** Part of the life that is left when an operator should look. */
const ALARM_BELOW = 0.25

export class CertificateManager {
  readonly #options: Required<Omit<CertificateManagerOptions, 'onFetch'>> &
    Pick<CertificateManagerOptions, 'onFetch'>
  readonly #pods = new Map<string, Holding>()
  readonly #queue: FetchQueue<Holding>
  readonly #listeners = new Set<(uid: string, certificate: PodCertificate) => void>()
  #bundle: X509Certificate[] = []

  constructor(options: CertificateManagerOptions) {
    this.#options = { concurrency: 8, timeoutMs: 10_000, clock: systemClock, random: Math.random, ...options }
    this.#queue = new FetchQueue({
      concurrency: this.#options.concurrency,
      run: holding => this.#fetch(holding),
    })
  }

  /**
   * Gets and keeps a certificate for a pod. Nothing happens when the pod is held already; under another identity it is
   * released first.
   */
  hold({ uid, identity }: PodIdentity): void {
    const present = this.#pods.get(uid)
    if (present?.identity === identity) return
    if (present) this.release(uid)
    const { random } = this.#options
    const holding: Holding = {
      uid,
      identity,
      cancel: new AbortController(),
      backoff: new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: LONGEST_RETRY_MS, random }),
      waiters: new Set(),
      heldFromMs: 0,
      failures: 0,
    }
    this.#pods.set(uid, holding)
    this.#enqueue(holding)
  }

  /** Forgets a pod, its key and its certificate, and cancels what is under way for it. */
  release(uid: string): void {
    const holding = this.#pods.get(uid)
    if (!holding) return
    this.#pods.delete(uid)
    holding.timer?.cancel()
    this.#queue.remove(holding)
    holding.cancel.abort()
    for (const { reject } of holding.waiters)
      reject(
        new CulvertError(
          'CLOSED',
          `the certificate of ${holding.identity} is no longer wanted: the pod is gone`,
        ),
      )
  }

  /** Releases every pod. */
  close(): void {
    for (const uid of this.#pods.keys()) this.release(uid)
  }

  /** Calls back with each new certificate, and again when the roots beside it change. Gives the way to stop that. */
  onCertificate(listener: (uid: string, certificate: PodCertificate) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** What was last handed out for a pod: for a data-plane thread that starts later. */
  certificate(uid: string): PodCertificate | undefined {
    return this.#pods.get(uid)?.handed
  }

  /** Ends when the pod has a certificate that is valid now. Rejects with the signal's reason, or `CLOSED` when the pod is released. */
  ready(uid: string, signal: AbortSignal): Promise<void> {
    const holding = this.#pods.get(uid)
    if (!holding) return Promise.reject(new CulvertError('CLOSED', `no certificate is kept for pod ${uid}`))
    if (signal.aborted) return Promise.reject(signal.reason as Error)
    if (this.#isValid(holding)) return Promise.resolve()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { resolve, reject }
    const onAbort = () => reject(signal.reason)
    holding.waiters.add(waiter)
    signal.addEventListener('abort', onAbort, { once: true })
    return promise.finally(() => {
      holding.waiters.delete(waiter)
      signal.removeEventListener('abort', onAbort)
    })
  }

  state(uid: string): CertificateStatus | undefined {
    const holding = this.#pods.get(uid)
    return holding && this.#status(holding)
  }

  states(): CertificateStatus[] {
    return Array.from(this.#pods.values(), holding => this.#status(holding))
  }

  /**
   * The trust bundle, PEM. Certificates whose roots change by it are handed out again. What cannot be read is logged
   * and left out; a bundle of which nothing can be read changes nothing.
   */
  setRoots(pems: readonly string[]): void {
    const { roots, problems } = parseRoots(pems)
    if (problems.length > 0) this.#options.log.warn({ problems }, 'part of the trust bundle is not usable')
    if (roots.length === 0 && pems.length > 0) return
    this.#bundle = roots
    for (const holding of this.#pods.values()) this.#hand(holding)
  }

  /** Asks again now for every pod whose last try found nobody: call it when the ca-server is known to be back. */
  retryNow(): void {
    for (const holding of this.#pods.values()) {
      const wasAway = holding.lastFailure === 'unavailable' || holding.lastFailure === 'timeout'
      if (!wasAway) continue
      // Also for one that is being asked for: it may have been asked too early, and is soon asked for again then.
      holding.backoff.reset()
      if (holding.timer) this.#enqueue(holding)
    }
  }

  #enqueue(holding: Holding): void {
    holding.timer?.cancel()
    holding.timer = undefined
    holding.nextAttemptMs = this.#options.clock.now()
    this.#queue.add(holding, !this.#isValid(holding))
  }

  /** Never rejects: a failure is a state of the pod. */
  async #fetch(holding: Holding): Promise<void> {
    const { source, clock, timeoutMs, onFetch } = this.#options
    const startedMs = clock.now()
    const isRenewal = this.#isValid(holding)
    const leftMs = (holding.issued?.notAfterMs ?? 0) - startedMs
    // With seconds left to live, one unanswered call must not use them all up.
    const limitMs = leftMs > 0 ? Math.min(timeoutMs, Math.max(SHORTEST_TIMEOUT_MS, leftMs / 3)) : timeoutMs
    const { uid, identity } = holding
    holding.nextAttemptMs = undefined
    let outcome: IssuedCertificate | CaError
    try {
      const bundle = this.#bundle
      outcome = await source.issue({
        podUid: uid,
        identity,
        bundle,
        signal: holding.cancel.signal,
        timeoutMs: limitMs,
      })
    } catch (err) {
      outcome = err instanceof CaError ? err : new CaError('unavailable', errorText(err), { cause: err })
    }
    const result = outcome instanceof CaError ? outcome.failure : 'issued'
    onFetch?.({ uid, identity, outcome: result, isRenewal, durationMs: clock.now() - startedMs })
    if (this.#pods.get(uid) !== holding) return // released meanwhile
    if (outcome instanceof CaError) this.#failed(holding, outcome)
    else this.#succeeded(holding, outcome)
  }

  #succeeded(holding: Holding, issued: IssuedCertificate): void {
    const { clock, log, random } = this.#options
    const nowMs = clock.now()
    const isRenewal = holding.issued !== undefined
    holding.issued = issued
    // A service dates certificates back against wrong clocks; with a short life, half of it might lie in the past.
    holding.heldFromMs = Math.max(issued.notBeforeMs, nowMs)
    holding.failures = 0
    holding.lastError = undefined
    holding.lastFailure = undefined
    holding.backoff.reset()
    const lifeMs = issued.notAfterMs - holding.heldFromMs
    const jitter = 1 + RENEW_JITTER * (2 * random() - 1)
    this.#schedule(holding, holding.heldFromMs + lifeMs * RENEW_AT * jitter - nowMs)
    log.info(
      {
        pod: holding.uid,
        identity: holding.identity,
        serial: issued.serial,
        not_after: new Date(issued.notAfterMs).toISOString(),
      },
      isRenewal ? 'certificate renewed' : 'certificate issued',
    )
    this.#hand(holding)
    for (const { resolve } of holding.waiters) resolve()
    this.retryNow()
  }

  #failed(holding: Holding, error: CaError): void {
    const { clock, log } = this.#options
    const nowMs = clock.now()
    holding.failures++
    holding.lastError = error.message
    holding.lastFailure = error.failure
    let waitMs = holding.backoff.next()
    const leftMs = holding.issued ? holding.issued.notAfterMs - nowMs : 0
    if (leftMs > 0) waitMs = Math.min(waitMs, Math.max(SHORTEST_RETRY_MS, leftMs / 4))
    this.#schedule(holding, waitMs)
    const fields = {
      pod: holding.uid,
      identity: holding.identity,
      failure: error.failure,
      error: error.message,
      hint: error.hint,
      failures: holding.failures,
      retry_ms: Math.round(waitMs),
    }
    if (!holding.issued) log.warn(fields, 'no certificate yet')
    else if (leftMs > 0)
      log.warn({ ...fields, left_ms: leftMs }, 'certificate not renewed, the old one still serves')
    else log.error(fields, 'certificate expired and not renewed')
  }

  #schedule(holding: Holding, delayMs: number): void {
    const { clock } = this.#options
    const wholeMs = Math.max(0, Math.floor(delayMs))
    holding.nextAttemptMs = clock.now() + wholeMs
    holding.timer = clock.after(wholeMs, () => this.#enqueue(holding))
  }

  /** Tells the listeners, unless they know exactly this already. */
  #hand(holding: Holding): void {
    const { issued, handed } = holding
    if (!issued) return
    const roots = rootsText(this.#bundle, issued.roots)
    if (handed?.key === issued.key && handed.roots === roots) return
    const certificate = { key: issued.key, chain: issued.chain, roots, notAfterMs: issued.notAfterMs }
    holding.handed = certificate
    for (const listener of this.#listeners) listener(holding.uid, certificate)
  }

  #isValid({ issued }: Holding): boolean {
    return issued !== undefined && this.#options.clock.now() < issued.notAfterMs
  }

  #status(holding: Holding): CertificateStatus {
    const { uid, identity, issued, heldFromMs, failures, lastError, nextAttemptMs } = holding
    const common = { uid, identity, failures, lastError, nextAttemptMs }
    if (!issued) return { ...common, state: 'fetching', alarm: false }
    const leftMs = issued.notAfterMs - this.#options.clock.now()
    const valid = failures > 0 ? 'renewal-failing' : 'valid'
    return {
      ...common,
      state: leftMs > 0 ? valid : 'expired',
      notBeforeMs: issued.notBeforeMs,
      notAfterMs: issued.notAfterMs,
      serial: issued.serial,
      alarm: leftMs < (issued.notAfterMs - heldFromMs) * ALARM_BELOW,
    }
  }
}
