/** The one flag with which a failed connection shows in the metrics that the field's dashboards read. */
import type { Reason } from '../../lib/reasons.ts'

export type ResponseFlag =
  '-' | 'DENY' | 'CONNECT' | 'TLS_FAILURE' | 'H2_HANDSHAKE_FAILURE' | 'IDENTITY_ERROR'

const FLAG: Partial<Record<Reason, ResponseFlag>> = {
  strict: 'DENY',
  policy: 'DENY',
  identity: 'IDENTITY_ERROR',
  tls: 'TLS_FAILURE',
  unreachable: 'CONNECT',
  'no-endpoint': 'CONNECT',
}

/** By the reason a connection ended with and the name of its failure. `-` when it was carried, however it ended. */
export function responseFlag(reason: Reason, errorCode: string | undefined): ResponseFlag {
  if (reason === 'unreachable' && errorCode === 'PROTOCOL_ERROR') return 'H2_HANDSHAKE_FAILURE'
  return FLAG[reason] ?? '-'
}
