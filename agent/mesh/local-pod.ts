/** A pod of this node as decisions need it: its settings, ready to be asked. */
import { Cidr } from '../../lib/address.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import type { LocalPod } from '../pods/source.ts'

export interface RoutedPod {
  readonly pod: LocalPod
  readonly enrolment: Enrolment
  readonly excludedInbound: ReadonlySet<number>
  readonly excludedOutbound: ReadonlySet<number>
  readonly excludedRanges: readonly Cidr[]
}

export function routedPod(pod: LocalPod, enrolment: Enrolment): RoutedPod {
  return {
    pod,
    enrolment,
    excludedInbound: new Set(enrolment.excludeInboundPorts),
    excludedOutbound: new Set(enrolment.excludeOutboundPorts),
    excludedRanges: enrolment.excludeOutboundCidrs.map(cidr => Cidr.parse(cidr)),
  }
}

/** Reports whether two states of a pod lead to the same decisions. */
export function decidesAlike(a: RoutedPod, b: RoutedPod): boolean {
  return (
    JSON.stringify(a.enrolment) === JSON.stringify(b.enrolment) &&
    a.pod.ips.join() === b.pod.ips.join() &&
    a.pod.namespace === b.pod.namespace &&
    a.pod.name === b.pod.name
  )
}
