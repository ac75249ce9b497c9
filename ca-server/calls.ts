/**
 * What every remote procedure call has in common: who calls is settled before the body is read, and what goes
 * wrong is told in full to the log and barely to the caller.
 */
import { Code, ConnectError, createContextKey, type HandlerContext } from '@connectrpc/connect'
import { errorText } from '../lib/errors.ts'
import type { Logger } from '../lib/log.ts'
import { LogLimit } from './log-limit.ts'
import type { Metrics } from './metrics.ts'
import { Refusal, TOKEN_REFUSALS, UNCHECKED } from './refusal.ts'
import {
  bearerToken,
  requireTrustedAccount,
  type Caller,
  type TokenAuthenticator,
} from './tokens/authenticator.ts'

const CALLER = createContextKey<Caller | undefined>(undefined)
/** Called when the caller has proved who it is; the listener puts it there. */
export const PROVEN = createContextKey<() => void>(() => undefined)

export interface CallsOptions {
  readonly authenticator: TokenAuthenticator
  /** `namespace/service-account`. */
  readonly trustedAccounts: ReadonlySet<string>
  readonly metrics: Metrics
  readonly log: Logger
}

export class Calls {
  readonly #options: CallsOptions
  readonly #limit: LogLimit

  constructor(options: CallsOptions) {
    this.#options = options
    this.#limit = new LogLimit(options.log)
  }

  /** Lets a call through whose token proves a trusted node agent. A gate of the router: runs before the body is read. */
  readonly gate = async (context: HandlerContext): Promise<void> => {
    try {
      const token = bearerToken(context.requestHeader.get('authorization'))
      const caller = await this.#options.authenticator.authenticate(token)
      context.values.set(CALLER, caller)
      requireTrustedAccount(caller, this.#options.trustedAccounts)
      context.values.get(PROVEN)()
    } catch (err) {
      this.#options.metrics.authenticationFailures.inc()
      throw this.refused(err, context, {})
    }
  }

  /** The error to answer with for anything thrown while a call was served; logs what it was. */
  refused(err: unknown, context: HandlerContext, fields: Record<string, unknown>): ConnectError {
    if (err instanceof ConnectError) return err
    const caller = context.values.get(CALLER)
    const all = {
      call: context.method.name,
      node: caller?.node,
      caller: caller && `${caller.namespace}/${caller.podName || caller.serviceAccount}`,
      ...fields,
      err: errorText(err),
    }
    if (!(err instanceof Refusal)) {
      this.#limit.warn('failed', all, 'call failed')
      return new ConnectError('internal error', Code.Internal)
    }
    this.#options.metrics.refusals.inc({ reason: err.reason })
    this.#limit.warn(err.reason, { reason: err.reason, ...all }, 'call refused')
    if (err.reason === UNCHECKED) return new ConnectError('try again', Code.Unavailable)
    const isToken = TOKEN_REFUSALS.some(reason => reason === err.reason)
    return isToken
      ? new ConnectError('not authenticated', Code.Unauthenticated)
      : new ConnectError('not permitted', Code.PermissionDenied)
  }
}

/** Who makes a call that came through the gate. */
export function callerOf(context: HandlerContext): Caller {
  const caller = context.values.get(CALLER)
  if (!caller) throw new ConnectError('not authenticated', Code.Unauthenticated)
  return caller
}

/** The caller's node. Throws `Refusal` when its token is bound to none. */
export function nodeOf(caller: Caller): string {
  if (caller.node !== undefined) return caller.node
  throw new Refusal('token-without-node', 'the token is not bound to a node')
}
