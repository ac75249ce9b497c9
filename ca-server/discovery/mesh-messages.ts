/** Culvert's own messages from Kubernetes objects: namespaces, nodes, enrolment, what was observed of a pod. */
import { create } from '@bufbuild/protobuf'
import { bytesFromIp, canonicalIp } from '../../lib/address.ts'
import type { Enrolment, EnrolmentWishes } from '../../lib/enrolment.ts'
import type { KubeNamespace, KubeNode, KubePod } from '../../lib/kube/objects.ts'
import {
  EnrolmentSchema,
  NamespaceSchema,
  NodeSchema,
  PodState,
  WorkloadInfoSchema,
  type Enrolment as EnrolmentMessage,
  type Namespace,
  type Node,
  type WorkloadInfo,
} from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { ObservedState } from '../reports/store.ts'
import { wishes } from '../world/enrolment.ts'

/** Canonical texts of the node's IP addresses, host names left out. */
export function nodeIps(node: KubeNode): string[] {
  return node.status.addresses
    .filter(({ type }) => type.endsWith('IP'))
    .map(({ address }) => canonicalIp(address))
}

export function nodeMessage(node: KubeNode): Node {
  return create(NodeSchema, {
    name: node.metadata.name,
    addresses: nodeIps(node).map(ip => bytesFromIp(ip)),
    podCidrs: [...node.spec.podCIDRs],
  })
}

export function namespaceMessage(namespace: KubeNamespace): Namespace {
  return create(NamespaceSchema, {
    name: namespace.metadata.name,
    enrolment: enrolmentMessage(wishes(namespace.metadata)),
  })
}

/** What Culvert's agents know of a pod beyond the common vocabulary. */
export function workloadInfo(
  pod: KubePod,
  enrolment: Enrolment,
  observed: ObservedState | undefined,
): WorkloadInfo {
  return create(WorkloadInfoSchema, {
    podUid: pod.metadata.uid,
    enrolment: enrolmentMessage(enrolment),
    probePorts: [...new Set(pod.spec.probePorts.map(({ port }) => port))].sort((a, b) => a - b),
    state: observed === undefined ? PodState.POD_STATE_UNSPECIFIED : POD_STATE[observed],
    terminating: pod.metadata.deletionTimestamp !== undefined,
  })
}

const POD_STATE: Readonly<Record<ObservedState, PodState>> = {
  pending: PodState.PENDING,
  enrolled: PodState.ENROLLED,
  drifted: PodState.DRIFTED,
  'not-enrolled': PodState.NOT_ENROLLED,
}

/** Wishes that were not said stay unset. */
function enrolmentMessage(from: EnrolmentWishes | Enrolment): EnrolmentMessage {
  return create(EnrolmentSchema, {
    ...(from.mesh !== undefined && { mesh: from.mesh }),
    ...(from.strictInbound !== undefined && { strictInbound: from.strictInbound }),
    ...(from.requireOutbound !== undefined && { requireOutbound: from.requireOutbound }),
    ...(from.cutOpen !== undefined && { cutOpen: from.cutOpen }),
    excludeInboundPorts: [...(from.excludeInboundPorts ?? [])],
    excludeOutboundPorts: [...(from.excludeOutboundPorts ?? [])],
    excludeOutboundCidrs: [...(from.excludeOutboundCidrs ?? [])],
    problems: [...from.problems],
  })
}
