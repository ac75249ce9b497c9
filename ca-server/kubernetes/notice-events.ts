/** Events of what agents report: connections of a pod that were refused, rules of a pod that somebody has changed. */
import type { KubePod } from '../../lib/kube/objects.ts'
import type { Notices, RefusalNotice } from '../reports/notices.ts'
import type { World } from '../world/world.ts'
import type { EventRecorder } from './event-recorder.ts'
import { subjectOf } from './sweep.ts'

/** Peers that are named; the others are counted. */
const MOST_NAMED = 3

/** Why a connection was refused, and what an Event about it is called. */
const REFUSALS: Readonly<
  Record<string, { readonly reason: string; readonly inbound: string; readonly outbound: string }>
> = {
  strict: {
    reason: 'PlaintextRefused',
    inbound: 'this pod takes no plaintext; refused were connections from',
    outbound: 'this pod sends no plaintext; refused were connections to',
  },
  policy: {
    reason: 'ConnectionRefused',
    inbound: 'a policy does not allow connections from',
    outbound: 'a policy does not allow connections to',
  },
  identity: {
    reason: 'IdentityRefused',
    inbound: 'the identity does not fit of connections from',
    outbound: 'the other end is not who it should be of connections to',
  },
}

/** Tells of what happened to pods of the agent's own node. */
export function tellNotices(
  world: Pick<World, 'podByUid'>,
  recorder: Pick<EventRecorder, 'tell'>,
  { node, refusals, repairs }: Notices,
): void {
  const podAt = (uid: string): KubePod | undefined => {
    const pod = world.podByUid(uid)
    return pod?.spec.nodeName === node ? pod : undefined
  }
  for (const alike of Map.groupBy(
    refusals,
    ({ podUid, reason, outbound }) => `${podUid} ${reason} ${outbound}`,
  ).values()) {
    const { podUid, reason, outbound } = alike[0]!
    const pod = podAt(podUid)
    const words = Object.hasOwn(REFUSALS, reason) ? REFUSALS[reason] : undefined
    if (!pod || !words) continue
    recorder.tell({
      regarding: subjectOf(pod),
      reason: words.reason,
      action: outbound ? 'Connect' : 'Accept',
      note: `${outbound ? words.outbound : words.inbound} ${peersOf(alike)}`,
      count: alike.reduce((sum, { count }) => sum + count, 0),
    })
  }
  for (const { podUid, what, by, count } of repairs) {
    const pod = podAt(podUid)
    if (!pod) continue
    const author = by === '' ? '' : ` by ${by}`
    recorder.tell({
      regarding: subjectOf(pod),
      reason: 'RedirectionRepaired',
      action: 'Guard',
      note: `redirection was changed${author} and put right: ${what}`,
      count,
    })
  }
}

/** `shop/a to port 80 (3), 192.0.2.7 to port 81 (1), and 2 more`, the most frequent first. */
function peersOf(refusals: readonly RefusalNotice[]): string {
  const sorted = refusals.toSorted((a, b) => b.count - a.count)
  const named = sorted
    .slice(0, MOST_NAMED)
    .map(({ peer, port, count }) => `${peer}${port === 0 ? '' : ` to port ${port}`} (${count})`)
  const others = sorted.length - named.length
  return `${named.join(', ')}${others > 0 ? `, and ${others} more` : ''}`
}
