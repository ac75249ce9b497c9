/**
 * Which services an address stands behind, and through which ports: EndpointSlices joined with the services they
 * belong to (discovery.k8s.io/v1). Only TCP exists for the mesh.
 */
import { create } from '@bufbuild/protobuf'
import { PortListSchema, PortSchema, type PortList } from '../../lib/proto/gen/istio/workload_pb.js'
import type { KubeEndpointSlice, KubePod, KubeService } from '../../lib/kube/objects.ts'
import { objectKey, type World } from '../world/world.ts'

export type SliceEndpoint = KubeEndpointSlice['endpoints'][number]

/** `<namespace>/<service>.<namespace>.svc.<cluster domain>`: the name of a service's resource. */
export function serviceName(service: { name: string; namespace: string }, clusterDomain: string): string {
  return `${service.namespace}/${hostname(service, clusterDomain)}`
}

export function hostname(service: { name: string; namespace: string }, clusterDomain: string): string {
  return `${service.name}.${service.namespace}.svc.${clusterDomain}`
}

/** The service of a slice, when it is there. */
export function serviceOf(world: World, slice: KubeEndpointSlice): KubeService | undefined {
  return world.service(`${slice.metadata.namespace ?? ''}/${slice.serviceName}`)
}

/** What the slices that name a pod say about it. */
export interface PodEndpoints {
  /** Ports by the name of the service's resource, in the order of names so that equal pods encode equally. */
  readonly services: Record<string, PortList>
  /** Whether traffic should go there; undefined when no slice that honours readiness names the pod. */
  readonly isReady: boolean | undefined
}

/** Collects what all slices say about one pod. */
export function endpointsOf(world: World, pod: KubePod, clusterDomain: string): PodEndpoints {
  const key = objectKey(pod.metadata)
  const ports = new Map<string, PortList>()
  let isReady: boolean | undefined
  for (const slice of world.slicesOfPod(key)) {
    const service = serviceOf(world, slice)
    if (!service) continue
    for (const endpoint of slice.endpoints) {
      if (!refersTo(endpoint, slice, pod)) continue
      addPorts(ports, service, slice, clusterDomain)
      // Such a service calls all of its endpoints ready, whatever they are.
      if (!service.spec.publishNotReadyAddresses) isReady = (isReady ?? true) && endpoint.ready
    }
  }
  return { services: inOrder(ports), isReady }
}

/** The ports of one slice, for endpoints that are no pods. */
export function portsOfSlice(
  service: KubeService,
  slice: KubeEndpointSlice,
  clusterDomain: string,
): Record<string, PortList> {
  const ports = new Map<string, PortList>()
  addPorts(ports, service, slice, clusterDomain)
  return inOrder(ports)
}

function refersTo(endpoint: SliceEndpoint, slice: KubeEndpointSlice, pod: KubePod): boolean {
  const ref = endpoint.targetRef
  return (
    ref?.kind === 'Pod' &&
    ref.name === pod.metadata.name &&
    (ref.namespace ?? slice.metadata.namespace) === pod.metadata.namespace &&
    (ref.uid === undefined || ref.uid === '' || ref.uid === pod.metadata.uid)
  )
}

function addPorts(
  into: Map<string, PortList>,
  service: KubeService,
  slice: KubeEndpointSlice,
  clusterDomain: string,
): void {
  const { name, namespace = '' } = service.metadata
  const key = serviceName({ name, namespace }, clusterDomain)
  const list = into.get(key) ?? create(PortListSchema)
  into.set(key, list)
  for (const target of slice.ports) {
    if (target.protocol !== 'TCP') continue
    for (const port of service.spec.ports) {
      if (port.protocol !== 'TCP' || (port.name ?? '') !== (target.name ?? '')) continue
      // IPv4 and IPv6 have a slice each that say the same.
      if (list.ports.some(known => known.servicePort === port.port)) continue
      list.ports.push(create(PortSchema, { servicePort: port.port, targetPort: target.port }))
    }
  }
}

function inOrder(ports: ReadonlyMap<string, PortList>): Record<string, PortList> {
  const sorted = [...ports].sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [, list] of sorted) list.ports.sort((a, b) => a.servicePort - b.servicePort)
  return Object.fromEntries(sorted)
}
