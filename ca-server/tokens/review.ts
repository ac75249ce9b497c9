/**
 * One TokenReview (authentication.k8s.io/v1): the API server says whether a token is good, and whose it is. What a
 * token itself says of the wrong audience or of its end is not worth a request.
 */
import { textAt, valueAt } from '../../lib/json.ts'
import { printable } from '../../lib/printable.ts'
import type { ApiClient } from '../kubernetes/api-client.ts'
import { Refusal } from '../refusal.ts'
import type { Caller } from './authenticator.ts'
import { unverifiedClaims } from './claims.ts'

export interface Reviewed {
  /** Without a node where neither review nor token names one (API servers before 1.30). */
  readonly caller: Caller
  /** Unix milliseconds. */
  readonly expiresAtMs: number
}

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const LIMITS = { silenceMs: 5000, maxBytes: 256 * 1024 }
/** Clocks may differ by so much: what ended a moment ago is the API server's to refuse. */
const SLACK_MS = 60_000
const EXTRA = 'authentication.kubernetes.io/'

/** What a token says of itself, which nobody has verified. */
export interface Terms {
  readonly claims: object
  /** Unix milliseconds. */
  readonly expiresAtMs: number
}

/** Throws `Refusal` when the token itself says that it is not for us. */
export function termsOf(token: string, audience: string): Terms {
  const claims = unverifiedClaims(token)
  if (!claims) throw new Refusal('token-malformed', 'the token is not a signed JWT')
  const audiences = valueAt(claims, 'aud')
  if (audiences !== audience && !(Array.isArray(audiences) && audiences.includes(audience)))
    throw new Refusal('token-audience', `the token is for another audience than ${audience}`)
  const seconds = valueAt(claims, 'exp')
  if (typeof seconds !== 'number') throw new Refusal('token-claims', 'the token has no end')
  if (seconds * 1000 + SLACK_MS < Date.now()) throw new Refusal('token-expired', 'the token has expired')
  return { claims, expiresAtMs: seconds * 1000 }
}

/** Asks. Throws `Refusal` when the token is not good, and what the client throws when there is no answer. */
export async function reviewToken(
  api: ApiClient,
  token: string,
  audience: string,
  signal: AbortSignal,
): Promise<Reviewed> {
  const { claims, expiresAtMs } = termsOf(token, audience)
  const review = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences: [audience] },
  }
  const answer = await api.change('POST', PATH, review, LIMITS, signal)
  return { caller: callerFromReview(valueAt(answer, 'status'), claims, audience), expiresAtMs }
}

/** The caller from a review's status and the claims of the token that it was about. Throws `Refusal`. */
export function callerFromReview(status: unknown, claims: object, audience: string): Caller {
  if (valueAt(status, 'authenticated') !== true) {
    const why = textAt(status, 'error') ?? 'it does not say why'
    throw new Refusal('token-rejected', `the API server does not accept the token: ${printable(why, 300)}`)
  }
  // One that knows nothing of audiences answers without them: it has checked the token for another one.
  const confirmed = valueAt(status, 'audiences')
  if (!Array.isArray(confirmed) || !confirmed.includes(audience))
    throw new Refusal('token-audience', `the API server does not confirm the audience ${audience}`)
  const user = valueAt(status, 'user')
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(textAt(user, 'username') ?? '')
  if (!account) throw new Refusal('token-claims', "the token is not a service account's")
  const [, namespace, serviceAccount] = account as unknown as [string, string, string]
  const extra = valueAt(user, 'extra')
  const kubernetes = valueAt(claims, 'kubernetes.io')
  const pod = valueAt(kubernetes, 'pod')
  return {
    node: firstAt(extra, 'node-name') ?? textAt(valueAt(kubernetes, 'node'), 'name'),
    podName: firstAt(extra, 'pod-name') ?? textAt(pod, 'name') ?? '',
    podUid: firstAt(extra, 'pod-uid') ?? textAt(pod, 'uid') ?? '',
    namespace,
    serviceAccount,
    audience,
  }
}

function firstAt(extra: unknown, key: string): string | undefined {
  const values = valueAt(extra, EXTRA + key)
  const first: unknown = Array.isArray(values) ? values[0] : undefined
  return typeof first === 'string' && first !== '' ? first : undefined
}
