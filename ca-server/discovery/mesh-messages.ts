/** Culvert's own messages from Kubernetes objects: namespaces, nodes, enrolment, what was observed of a pod. */
import { create } from '@bufbuild/protobuf'
import { bytesFromIp, canonicalIp } from '../../lib/address.ts'
import type { Enrolment, EnrolmentWishes } from '../../lib/enrolment.ts'
import type { KubeNamespace, KubeNode, KubePod } from '../../lib/kube/objects.ts'
import {
  EndpointInfoSchema,
  EnrolmentSchema,
  HostPortSchema,
  NamespaceSchema,
  NodeSchema,
  PodState,
  Readiness,
  WorkloadInfoSchema,
  type EndpointInfo,
  type Enrolment as EnrolmentMessage,
  type HostPort,
  type Namespace,
  type Node,
  type WorkloadInfo,
} from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { ObservedState } from '../reports/store.ts'
import type { ServicePart } from './endpoints.ts'
import { namespaceWishes } from '../world/enrolment.ts'
import type { World } from '../world/world.ts'

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

export function namespaceMessage(world: World, namespace: KubeNamespace): Namespace {
  return create(NamespaceSchema, {
    name: namespace.metadata.name,
    enrolment: enrolmentMessage(namespaceWishes(world, namespace)),
  })
}

/** How a pod stands with the services that it is behind. */
export interface PodStanding {
  readonly isReady: boolean
  readonly isServing: boolean
  readonly parts: ReadonlyMap<string, ServicePart>
}

/** What Culvert's agents know of a pod beyond the common vocabulary. */
export function workloadInfo(
  pod: KubePod,
  enrolment: Enrolment,
  observed: ObservedState | undefined,
  standing: PodStanding,
): WorkloadInfo {
  return create(WorkloadInfoSchema, {
    podUid: pod.metadata.uid,
    enrolment: enrolmentMessage(enrolment),
    probePorts: [...new Set(pod.spec.probePorts.map(({ port }) => port))].sort((a, b) => a - b),
    state: observed === undefined ? PodState.POD_STATE_UNSPECIFIED : POD_STATE[observed],
    terminating: pod.metadata.deletionTimestamp !== undefined,
    serving: standing.isServing,
    endpoints: endpointInfos(pod, standing),
    hostPorts: hostPorts(pod),
  })
}

/** Only what the workload does not say already: most pods are ready or not, for all of their services alike. */
function endpointInfos(pod: KubePod, { isReady, isServing, parts }: PodStanding): EndpointInfo[] {
  const isLeaving = pod.metadata.deletionTimestamp !== undefined
  const readinessOf = (part: Pick<ServicePart, 'isReady' | 'isServing'>): Readiness =>
    part.isReady && !isLeaving
      ? Readiness.READY
      : part.isServing && isLeaving
        ? Readiness.SERVING
        : Readiness.NOT_READY
  const usual = readinessOf({ isReady, isServing })
  return [...parts].flatMap(([service, part]) => {
    const { zones, nodes } = part
    // The service itself says that it takes what is not ready.
    const readiness = part.publishesNotReady ? usual : readinessOf(part)
    if (readiness === usual && zones.length === 0 && nodes.length === 0) return []
    const said = readiness === usual ? Readiness.READINESS_UNSPECIFIED : readiness
    return create(EndpointInfoSchema, { service, readiness: said, zones: [...zones], nodes: [...nodes] })
  })
}

function hostPorts(pod: KubePod): HostPort[] {
  if (pod.spec.hostNetwork) return []
  return pod.spec.containers
    .flatMap(({ ports = [] }) => ports)
    .filter(({ hostPort, protocol = 'TCP' }) => hostPort !== undefined && protocol === 'TCP')
    .map(({ hostPort, hostIP, containerPort }) =>
      create(HostPortSchema, {
        hostPort: hostPort!,
        containerPort,
        ...(hostIP !== undefined && !UNSPECIFIED.has(hostIP) && { hostIp: bytesFromIp(hostIP) }),
      }),
    )
}

const UNSPECIFIED: ReadonlySet<string> = new Set(['0.0.0.0', '::'])

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
