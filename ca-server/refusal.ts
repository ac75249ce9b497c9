/**
 * Why a call was turned down: one word for logs and metrics and a sentence for the operator. The caller never
 * sees either; it learns only that it was refused, so that probing tells it nothing.
 */
import { CulvertError } from '../lib/errors.ts'

/** The token does not prove who calls. */
export const TOKEN_REFUSALS = [
  'token-missing',
  'token-malformed',
  'token-signature',
  'token-expired',
  'token-issuer',
  'token-audience',
  'token-claims',
  'token-rejected',
] as const

/** Nobody could say whether the token is good; the caller comes again. */
export const UNCHECKED = 'token-unchecked'

/** The caller is known, but may not have what it asks for. */
export const REQUEST_REFUSALS = [
  'account-not-trusted',
  'token-without-node',
  'csr-too-large',
  'csr-malformed',
  'csr-signature',
  'csr-key',
  'csr-names',
  'csr-extensions',
  'metadata',
  'identity-malformed',
  'trust-domain',
  'pod-unknown',
  'pod-other-node',
  'pod-other-identity',
  'pod-finished',
  'pod-terminating',
  'pod-host-network',
  'pod-not-enrolled',
] as const

export type TokenRefusal = (typeof TOKEN_REFUSALS)[number]
export type RequestRefusal = (typeof REQUEST_REFUSALS)[number]
export type RefusalReason = TokenRefusal | typeof UNCHECKED | RequestRefusal

export class Refusal extends CulvertError {
  override name = 'Refusal'
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, message: string, options: { cause?: unknown } = {}) {
    super('DENIED', message, options)
    this.reason = reason
  }
}
