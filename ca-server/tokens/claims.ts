/**
 * The claims of a projected service-account token (Kubernetes `pkg/serviceaccount/claims.go`): who it was given to.
 * What is read here is worth as much as the check of the signature that goes before it.
 */
import { Refusal } from '../refusal.ts'
import type { Caller } from './authenticator.ts'

/** The caller from the claims of a verified token. Throws `Refusal`. */
export function callerFromClaims(payload: object, audience: string): Caller {
  const kubernetes = objectAt(payload, 'kubernetes.io')
  const account = objectAt(kubernetes, 'serviceaccount')
  const pod = objectAt(kubernetes, 'pod')
  const namespace = textAt(kubernetes, 'namespace')
  const serviceAccount = textAt(account, 'name')
  if (!namespace || !serviceAccount)
    throw new Refusal('token-claims', 'the token has no kubernetes.io namespace and service account')
  if (objectAt(payload, 'sub') !== `system:serviceaccount:${namespace}:${serviceAccount}`)
    throw new Refusal(
      'token-claims',
      `the token's subject is not service account ${namespace}/${serviceAccount}`,
    )
  return {
    node: textAt(objectAt(kubernetes, 'node'), 'name'),
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

export function objectAt(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined
}

/** A text that is not empty. */
export function textAt(value: unknown, key: string): string | undefined {
  const found = objectAt(value, key)
  return typeof found === 'string' && found !== '' ? found : undefined
}
