/**
 * Who calls: an agent proves itself with the projected service-account token of its pod. Whatever verifies the
 * token, the caller's node and pod come from the token's own claims, never from the request.
 */
import { Refusal } from '../refusal.ts'

export interface Caller {
  /** Name of the node that the token's pod runs on; undefined when the token is bound to no node. */
  readonly node: string | undefined
  readonly podName: string
  readonly podUid: string
  readonly namespace: string
  readonly serviceAccount: string
  /** The audience that was asked for and found. */
  readonly audience: string
}

export interface TokenAuthenticator {
  /** The caller that a bearer token proves. Rejects with a `Refusal` when it proves none. */
  authenticate(token: string): Promise<Caller>
}

// A projected token has 1–2 KB; anything far beyond is not worth a signature check.
const MAX_TOKEN_CHARS = 16_384

/** The token of an `authorization` header (RFC 6750 §2.1). Throws `Refusal`. */
export function bearerToken(header: string | null): string {
  if (!header) throw new Refusal('token-missing', 'the call carries no authorization header')
  const match = /^bearer +([\w.~+/-]+=*)$/i.exec(header)
  if (!match || header.length > MAX_TOKEN_CHARS)
    throw new Refusal('token-malformed', 'the authorization header is not a bearer token')
  return match[1]!
}

/** Service accounts whose word is taken for a whole node, as `namespace/name`. Throws `Refusal` for others. */
export function requireTrustedAccount(caller: Caller, accounts: ReadonlySet<string>): void {
  const account = `${caller.namespace}/${caller.serviceAccount}`
  if (!accounts.has(account))
    throw new Refusal('account-not-trusted', `service account ${account} is not a trusted node account`)
}
