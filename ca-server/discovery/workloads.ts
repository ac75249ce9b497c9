/**
 * Workloads as the data plane knows them, from pods, and from endpoints that are no pods (an API server, a
 * database outside the cluster) so that their services stay reachable through the mesh.
 *
 * A pod is told to take tunnels only when it is meant to be in the mesh *and* its agent has seen its listeners
 * stand; it is told not to as soon as it is no longer meant to be. So nobody ever tunnels into a void.
 */
import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { bytesFromIp, canonicalIp } from '../../lib/address.ts'
import { addressName, hostPortName } from '../../lib/discovery-names.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import type { KubeEndpointSlice, KubePod } from '../../lib/kube/objects.ts'
import { WorkloadInfoSchema, type WorkloadInfo } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  AddressSchema,
  ExtensionSchema,
  LocalitySchema,
  NetworkMode,
  TunnelProtocol,
  WorkloadSchema,
  WorkloadStatus,
  WorkloadType,
  type Locality,
  type Workload,
} from '../../lib/proto/gen/istio/workload_pb.js'
import type { Observation } from '../reports/store.ts'
import { enrolmentOf, isFinished } from '../world/enrolment.ts'
import { objectKey, type World } from '../world/world.ts'
import { appNameOf } from './app-labels.ts'
import { endpointsOf, portsOfSlice, serviceOf, type PodEndpoints, type ServicePart } from './endpoints.ts'
import { workloadInfo } from './mesh-messages.ts'
import type { ResourceContent } from './resource-set.ts'

export interface MeshSettings {
  /** Named in every workload; the first part of its uid. */
  readonly clusterId: string
  readonly clusterDomain: string
  readonly trustDomain: string
  /** Being meant to be in the mesh is enough to be tunnelled to: for agents that cannot report. */
  readonly tunnelWithoutReport: boolean
}

/** Part of no service: what a pod is before it has an address. */
const NOWHERE: PodEndpoints = { services: {}, parts: new Map() }
const NOT_READY = { isReady: false, isServing: false } as const

/** On a Node: its agent is somebody else's and does not report. */
export const AGENT_ANNOTATION = 'culvert.dev/agent'
/** Name of the extension that only Culvert's agents read. */
export const WORKLOAD_EXTENSION = 'culvert.dev/workload'

const LOCALITY = {
  region: 'topology.kubernetes.io/region',
  zone: 'topology.kubernetes.io/zone',
  subzone: 'topology.istio.io/subzone',
} as const
/** Every label of a node that is looked at here. */
export const LOCALITY_LABELS: readonly string[] = Object.values(LOCALITY)

/** Key of all workloads of a node: an agent that asks by name is given its own pods unasked. */
export function nodeGroup(node: string): string {
  return `node ${node}` // no resource has a blank in its name
}

/** Name of a pod's resource; `key` is `namespace/name`. */
export function podResourceName(key: string, settings: MeshSettings): string {
  return `${settings.clusterId}//Pod/${key}`
}

/**
 * A pod's workload; undefined while no node is chosen for it, and when it has ended. It is told before the pod has an
 * address, so that its agent knows who it is when it is about to run: nobody can be sent to it then.
 */
export function podWorkload(
  world: World,
  pod: KubePod,
  observation: Observation | undefined,
  settings: MeshSettings,
): ResourceContent | undefined {
  const { metadata, spec, status } = pod
  const isPlaced = status.podIPs.length > 0
  if (isFinished(pod) || !(isPlaced || spec.nodeName)) return undefined
  const { namespace = '', name } = metadata
  const ips = status.podIPs.map(ip => canonicalIp(ip))
  const enrolment = enrolmentOf(world, pod)
  const { services, parts } = isPlaced ? endpointsOf(world, pod, settings.clusterDomain) : NOWHERE
  const { isReady, isServing } = isPlaced ? readinessOf(pod, parts) : NOT_READY
  const info = workloadInfo(pod, enrolment, observation?.state, { isReady, isServing, parts })
  const workload = create(WorkloadSchema, {
    uid: podResourceName(objectKey(metadata), settings),
    name,
    namespace,
    addresses: ips.map(ip => bytesFromIp(ip)),
    tunnelProtocol:
      isPlaced && takesTunnels(world, pod, enrolment, observation, settings)
        ? TunnelProtocol.HBONE
        : TunnelProtocol.NONE,
    trustDomain: settings.trustDomain,
    serviceAccount: spec.serviceAccountName,
    node: spec.nodeName ?? '',
    ...appNameOf(pod),
    services,
    status: isReady ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    clusterId: settings.clusterId,
    networkMode: spec.hostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
    extensions: [
      create(ExtensionSchema, { name: WORKLOAD_EXTENSION, config: anyPack(WorkloadInfoSchema, info) }),
    ],
    ...localityOf(world, spec.nodeName),
  })
  return contentOf(workload, ips, info)
}

/**
 * Whether a pod is ready, and whether it answers, for services that say nothing else: what the slices of its own
 * namespace say, those left out that call everything ready, or, without any, the pod itself.
 */
function readinessOf(
  { metadata, status }: KubePod,
  parts: ReadonlyMap<string, ServicePart>,
): { isReady: boolean; isServing: boolean } {
  const own = [...parts]
    .filter(([key, part]) => !part.publishesNotReady && key.startsWith(`${metadata.namespace}/`))
    .map(([, part]) => part)
  if (own.length === 0) own.push({ ...NO_PART, isReady: status.ready, isServing: status.ready })
  return {
    isReady: metadata.deletionTimestamp === undefined && own.every(part => part.isReady),
    isServing: own.every(part => part.isServing),
  }
}

const NO_PART = { publishesNotReady: false, zones: [], nodes: [] } as const

function takesTunnels(
  world: World,
  pod: KubePod,
  enrolment: Enrolment,
  observation: Observation | undefined,
  settings: MeshSettings,
): boolean {
  if (!enrolment.mesh) return false
  if (settings.tunnelWithoutReport || isForeign(world, pod.spec.nodeName)) return true
  return observation?.state === 'enrolled' || observation?.state === 'drifted'
}

/** Reports whether the node's agent is somebody else's and does not report. */
export function isForeign(world: World, node: string | undefined): boolean {
  return world.node(node ?? '')?.metadata.annotations?.[AGENT_ANNOTATION] === 'foreign'
}

/** Workloads for the endpoints of a slice that are no pods, by the name of their resource. */
export function externalWorkloads(
  world: World,
  slice: KubeEndpointSlice,
  isNodeIp: (ip: string) => boolean,
  settings: MeshSettings,
): Map<string, ResourceContent> {
  const found = new Map<string, ResourceContent>()
  const service = serviceOf(world, slice)
  if (!service || slice.addressType === 'FQDN') return found
  const services = portsOfSlice(service, slice, settings.clusterDomain)
  const { name, namespace = '' } = slice.metadata
  for (const endpoint of slice.endpoints) {
    if (endpoint.targetRef?.kind === 'Pod') continue
    for (const address of endpoint.addresses) {
      const ip = canonicalIp(address)
      if (isPodAt(world, ip)) continue // that one says so itself
      const uid = `${settings.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${ip}`
      const workload = create(WorkloadSchema, {
        uid,
        name,
        namespace,
        addresses: [bytesFromIp(ip)],
        trustDomain: settings.trustDomain,
        node: endpoint.nodeName ?? '',
        workloadName: name,
        workloadType: WorkloadType.POD,
        canonicalName: service.metadata.name,
        canonicalRevision: 'latest',
        services,
        status: endpoint.ready ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
        clusterId: settings.clusterId,
        networkMode: isNodeIp(ip) ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
      })
      found.set(uid, contentOf(workload, [ip]))
    }
  }
  return found
}

/** Reports whether the address is a pod's own. */
function isPodAt(world: World, ip: string): boolean {
  for (const pod of world.podsByIp(ip)) if (!pod.spec.hostNetwork && !isFinished(pod)) return true
  return false
}

/** The address of a node is not its pods' name: who asks about it is told of them beside. */
function contentOf(workload: Workload, ips: readonly string[], info?: WorkloadInfo): ResourceContent {
  const names = ips.map(ip => addressName('', ip)) // of the network without a name
  const isOnNode = workload.networkMode === NetworkMode.HOST_NETWORK
  const hostPorts = (info?.hostPorts ?? []).map(({ hostPort }) => hostPortName(workload.node, hostPort))
  const services = Object.keys(workload.services)
  const node = workload.node === '' ? [] : [nodeGroup(workload.node)]
  return {
    bytes: toBinary(AddressSchema, create(AddressSchema, { type: { case: 'workload', value: workload } })),
    aliases: [...(isOnNode ? [] : names), ...hostPorts],
    groups: [...services, ...node, ...(isOnNode ? names : [])],
  }
}

/** Where a node says that it stands, by the well-known labels. */
function localityOf(world: World, nodeName: string | undefined): { locality?: Locality } {
  const labels = world.node(nodeName ?? '')?.metadata.labels
  const region = labels?.[LOCALITY.region] ?? ''
  const zone = labels?.[LOCALITY.zone] ?? ''
  const subzone = labels?.[LOCALITY.subzone] ?? ''
  if (!region && !zone && !subzone) return {}
  return { locality: create(LocalitySchema, { region, zone, subzone }) }
}
