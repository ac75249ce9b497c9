/** The one flag with which a failed connection shows in the metrics that the field's dashboards read. */
import type { Reason } from '../../lib/reasons.ts'
import type { ConnectionRecord } from '../worker/messages.ts'

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

/** `-` for a connection that was carried, however it ended. */
export function responseFlag(record: ConnectionRecord): ResponseFlag {
  if (record.reason === 'unreachable' && record.errorCode === 'PROTOCOL_ERROR') return 'H2_HANDSHAKE_FAILURE'
  return FLAG[record.reason] ?? '-'
}
