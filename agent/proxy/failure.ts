/** Why a connection could not be made: its word in the vocabulary, and whether trying again can help. */
import { errorCode, errorText } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import type { RefusedReason } from '../../lib/reasons.ts'
import { StreamResetError } from '../hbone/protocol.ts'

export interface Failure {
  readonly reason: RefusedReason
  readonly error: string
  readonly errorCode?: string | undefined
  /**
   * Nothing of the application's was sent, so another try is safe. `try-again`: the peer's agent went away in the
   * middle, as a restart does; the same endpoint may do next time. `try-other`: only another endpoint can help.
   */
  readonly next: 'give-up' | 'try-other' | 'try-again'
}

const BROKE_OFF: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE', 'CLOSED'])

/** The peer's agent answered, and not with 200. */
export function refusal(status: number, headers: ReadonlyMap<string, string>): Failure {
  const detail = headers.get('culvert-error')
  const said = `peer answered ${status}${detail ? ` (${printable(detail)})` : ''}`
  if (status === 401) return { reason: 'policy', error: said, errorCode: 'HTTP_401', next: 'give-up' }
  const code = detail && /^(E[A-Z]{2,20}|TOO_MANY_CONNECTIONS)$/.test(detail) ? detail : `HTTP_${status}`
  return {
    reason: 'unreachable',
    error: said,
    errorCode: code,
    next: status === 503 ? 'try-other' : 'give-up',
  }
}

/** What was thrown on the way to a peer. */
export function failureOf(err: unknown): Failure {
  const error = errorText(err)
  if (err instanceof StreamResetError)
    return {
      reason: 'unreachable',
      error,
      errorCode: 'STREAM_RESET',
      next: err.byPeer ? 'try-again' : 'give-up',
    }
  const code = errorCode(err)
  const cause = err instanceof Error ? errorCode(err.cause) : undefined
  const errno = cause ?? code
  switch (code) {
    case 'IDENTITY':
      return { reason: 'identity', error, errorCode: code, next: 'try-other' }
    case 'TLS':
      return {
        reason: 'tls',
        error,
        errorCode: errno,
        next: BROKE_OFF.has(cause) ? 'try-again' : 'try-other',
      }
    case 'TIMEOUT':
    case 'PKI':
    case 'CA':
      return { reason: 'tls', error, errorCode: errno, next: 'try-other' }
    case 'UNREACHABLE':
      return {
        reason: 'unreachable',
        error,
        errorCode: errno,
        next: errno === 'ECONNRESET' ? 'try-again' : 'try-other',
      }
    default:
      return { reason: 'unreachable', error, errorCode: errno, next: 'give-up' }
  }
}
