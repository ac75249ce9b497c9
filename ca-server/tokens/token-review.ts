/**
 * Tokens checked by the API server, which knows at once when a pod, and with it its token, has gone. What it says is
 * kept for a moment, since agents call often:
 *
 * - a good token for a minute, never past its end; while the API server cannot be asked, for five: that it is away
 *   must not keep agents from renewing certificates. A token of a pod that was deleted counts for as long;
 * - one that was refused, for some seconds;
 * - a token that is being checked is not checked a second time, and strangers' tokens are checked some at a time.
 */
import { hash } from 'node:crypto'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { ApiClient } from '../kubernetes/api-client.ts'
import type { Metrics } from '../metrics.ts'
import { Refusal, UNCHECKED } from '../refusal.ts'
import type { Caller, TokenAuthenticator } from './authenticator.ts'
import { reviewToken, termsOf, type Reviewed } from './review.ts'

export interface TokenReviewOptions {
  readonly api: ApiClient
  readonly audience: string
  /** The node of a pod of that service account, as far as the cluster is known: where the token does not say. */
  readonly nodeOfPod: (podUid: string, namespace: string, serviceAccount: string) => string | undefined
  readonly metrics: Pick<Metrics, 'tokenReviews'>
  readonly log: Logger
  readonly signal: AbortSignal
  /** Milliseconds of a clock that never goes back. @default performance.now */
  readonly nowMs?: () => number
  /** Tokens that are kept. @default 10000 */
  readonly mostKept?: number
}

const GOOD_FOR_MS = 60_000
const GOOD_FOR_WHILE_AWAY_MS = 300_000
const REFUSED_FOR_MS = 5000
/** While it is away, the API server is asked this often about tokens that were good. */
const PROBE_EVERY_MS = 5000
/** With so many under way, no token that is new is checked beside them. */
const MOST_CHECKS = 64
const MOST_REFUSED = 1000

interface Good {
  readonly caller: Caller
  readonly atMs: number
  /** When the token ends, by our clock. */
  readonly endsAtMs: number
}

interface Refused {
  readonly refusal: Refusal
  readonly atMs: number
}

export class TokenReviewAuthenticator implements TokenAuthenticator {
  readonly #options: TokenReviewOptions
  readonly #nowMs: () => number
  readonly #mostKept: number
  // By the token's SHA-256, so that no token is kept; in the order of their use.
  readonly #good = new Map<string, Good>()
  readonly #refused = new Map<string, Refused>()
  readonly #checks = new Map<string, Promise<Caller>>()
  /** Nobody could be asked the last time. */
  #isAway = false
  #probeAtMs = -Infinity

  constructor(options: TokenReviewOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#mostKept = options.mostKept ?? 10_000
  }

  async authenticate(token: string): Promise<Caller> {
    const key = hash('sha256', token, 'base64')
    const nowMs = this.#nowMs()
    const good = this.#good.get(key)
    if (good === undefined || nowMs >= good.endsAtMs || nowMs - good.atMs >= GOOD_FOR_WHILE_AWAY_MS)
      return await this.#stranger(key, token, nowMs)
    put(this.#good, key, good, this.#mostKept)
    if (nowMs - good.atMs < GOOD_FOR_MS) return this.#placed(good.caller)
    if (!this.#isAway) return await this.#check(key, token).catch((err: unknown) => this.#stale(good, err))
    if (nowMs >= this.#probeAtMs) this.#check(key, token).catch(() => undefined) // what it finds is kept
    return this.#stale(good, undefined)
  }

  /** A token that was never good, or is not any more. */
  async #stranger(key: string, token: string, nowMs: number): Promise<Caller> {
    termsOf(token, this.#options.audience)
    const refused = this.#refused.get(key)
    if (refused && nowMs - refused.atMs < REFUSED_FOR_MS) throw refused.refusal
    if (!this.#checks.has(key) && this.#checks.size >= MOST_CHECKS)
      throw new Refusal(UNCHECKED, 'too many tokens are being checked')
    return await this.#check(key, token)
  }

  /** One that was good lately stays so, unless it was refused. */
  #stale({ caller }: Good, err: unknown): Caller {
    if (err instanceof Refusal && err.reason !== UNCHECKED) throw err
    this.#options.metrics.tokenReviews.inc({ result: 'stale' })
    return this.#placed(caller)
  }

  /** Joins the check of that token, or begins one. */
  #check(key: string, token: string): Promise<Caller> {
    const running = this.#checks.get(key)
    if (running) return running
    const check = this.#ask(key, token).finally(() => this.#checks.delete(key))
    this.#checks.set(key, check)
    return check
  }

  async #ask(key: string, token: string): Promise<Caller> {
    const { api, audience, metrics, log, signal } = this.#options
    let reviewed: Reviewed
    this.#probeAtMs = this.#nowMs() + PROBE_EVERY_MS
    try {
      reviewed = await reviewToken(api, token, audience, signal)
    } catch (err) {
      if (err instanceof Refusal) throw this.#refuse(key, err)
      metrics.tokenReviews.inc({ result: 'failed' })
      if (!this.#isAway)
        log.warn({ err: errorText(err) }, 'tokens cannot be checked, those that were good lately stay so')
      this.#isAway = true
      throw new Refusal(UNCHECKED, 'the token could not be checked', { cause: err })
    }
    metrics.tokenReviews.inc({ result: 'accepted' })
    this.#answered()
    const atMs = this.#nowMs()
    const { caller, expiresAtMs } = reviewed
    put(this.#good, key, { caller, atMs, endsAtMs: atMs + expiresAtMs - Date.now() }, this.#mostKept)
    return this.#placed(caller)
  }

  #refuse(key: string, refusal: Refusal): Refusal {
    this.#options.metrics.tokenReviews.inc({ result: 'refused' })
    this.#answered()
    this.#good.delete(key)
    put(this.#refused, key, { refusal, atMs: this.#nowMs() }, MOST_REFUSED)
    return refusal
  }

  #answered(): void {
    if (this.#isAway) this.#options.log.info('tokens can be checked again')
    this.#isAway = false
  }

  /** With the node that its pod is on, where the token does not name one. */
  #placed(caller: Caller): Caller {
    if (caller.node !== undefined || caller.podUid === '') return caller
    const { podUid, namespace, serviceAccount } = caller
    return { ...caller, node: this.#options.nodeOfPod(podUid, namespace, serviceAccount) }
  }
}

/** Adds a value as the last one; of too many, the one that was used longest ago goes. */
function put<T>(map: Map<string, T>, key: string, value: T, most: number): void {
  map.delete(key)
  if (map.size >= most) map.delete(map.keys().next().value!)
  map.set(key, value)
}
