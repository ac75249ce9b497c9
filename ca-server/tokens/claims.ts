/**
 * The claims of a projected service-account token (Kubernetes `pkg/serviceaccount/claims.go`): who it was given to.
 * What is read here is worth as much as the check of the signature that goes before it.
 */
import { textAt, valueAt } from '../../lib/json.ts'
import { Refusal } from '../refusal.ts'
import type { Caller } from './authenticator.ts'

/** The caller from the claims of a verified token. Throws `Refusal`. */
export function callerFromClaims(payload: object, audience: string): Caller {
  const kubernetes = valueAt(payload, 'kubernetes.io')
  const account = valueAt(kubernetes, 'serviceaccount')
  const pod = valueAt(kubernetes, 'pod')
  const namespace = textAt(kubernetes, 'namespace')
  const serviceAccount = textAt(account, 'name')
  if (!namespace || !serviceAccount)
    throw new Refusal('token-claims', 'the token has no kubernetes.io namespace and service account')
  if (valueAt(payload, 'sub') !== `system:serviceaccount:${namespace}:${serviceAccount}`)
    throw new Refusal(
      'token-claims',
      `the token's subject is not service account ${namespace}/${serviceAccount}`,
    )
  return {
    node: textAt(valueAt(kubernetes, 'node'), 'name'),
    podName: textAt(pod, 'name') ?? '',
    podUid: textAt(pod, 'uid') ?? '',
    namespace,
    serviceAccount,
    audience,
  }
}

/** The payload of a token whose signature nobody has checked; undefined when it is no JSON Web Token. */
export function unverifiedClaims(token: string): object | undefined {
  const parts = token.split('.')
  if (parts.length !== 3 || parts.some(part => part === '')) return undefined
  try {
    const payload: unknown = JSON.parse(Buffer.from(parts[1]!, 'base64url').toString())
    return typeof payload === 'object' && payload !== null && !Array.isArray(payload) ? payload : undefined
  } catch {
    return undefined
  }
}
