/** Which of the connections that are open a pod would not have let in had it been strict already. */
import type { PlaintextReason, Reason } from '../../lib/reasons.ts'
import type { ConnectionRecord } from './messages.ts'

/** Probes and excluded ports are let in by strict, too. */
const AGAINST_STRICT: ReadonlySet<Reason> = new Set<PlaintextReason>([
  'peer-not-enrolled',
  'peer-unknown',
  'peer-external',
  'peer-host-network',
  'excluded-cidr',
])

/** Reports whether the connection comes to the pod in plaintext that strict would have refused. */
export function isAgainstStrict(
  podUid: string,
  connection: Pick<ConnectionRecord, 'podUid' | 'direction' | 'reason'>,
): boolean {
  const { direction, reason } = connection
  return connection.podUid === podUid && direction === 'inbound' && AGAINST_STRICT.has(reason)
}
