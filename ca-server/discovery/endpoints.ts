/**
 * Which services an address stands behind, and through which ports: EndpointSlices joined with the services they
 * belong to (discovery.k8s.io/v1). Only TCP exists for the mesh.
 */
import { isDeepStrictEqual } from 'node:util'
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

/**
 * The endpoints for which something changes when a slice becomes another: those that differ, before and after; all of
 * both when the slice itself says something else. A slice may have a hundred endpoints, of which usually one changes.
 */
export function differingEndpoints(
  before: KubeEndpointSlice | undefined,
  after: KubeEndpointSlice | undefined,
): SliceEndpoint[] {
  const [old, fresh] = [before?.endpoints ?? [], after?.endpoints ?? []]
  const says = (slice: KubeEndpointSlice | undefined) => [
    slice?.addressType,
    slice?.serviceName,
    slice?.ports,
  ]
  if (!isDeepStrictEqual(says(before), says(after))) return [...old, ...fresh]
  const gone = new Map(old.map(endpoint => [JSON.stringify(endpoint), endpoint]))
  const come = fresh.filter(endpoint => !gone.delete(JSON.stringify(endpoint)))
  return [...gone.values(), ...come]
}

/** The service of a slice, when it is there. */
export function serviceOf(world: World, slice: KubeEndpointSlice): KubeService | undefined {
  return world.service(`${slice.metadata.namespace ?? ''}/${slice.serviceName}`)
}

/** A pod's part in one service, as its slices tell it. */
export interface ServicePart {
  /** Traffic should go there. A service that publishes what is not ready calls all of its endpoints ready. */
  readonly isReady: boolean
  /** It answers, be it on its way out or not. */
  readonly isServing: boolean
  readonly publishesNotReady: boolean
  /** Zones and nodes whose clients are to prefer it, each once, in order. */
  readonly zones: readonly string[]
  readonly nodes: readonly string[]
}

/** What the slices that name a pod, or its address, say about it. */
export interface PodEndpoints {
  /** Ports by the name of the service's resource, in the order of names so that equal pods encode equally. */
  readonly services: Record<string, PortList>
  /** By the name of the service's resource, in the same order. */
  readonly parts: ReadonlyMap<string, ServicePart>
}

/** Collects what all slices say about one pod. */
export function endpointsOf(world: World, pod: KubePod, clusterDomain: string): PodEndpoints {
  const ports = new Map<string, PortList>()
  const parts = new Map<string, ServicePart>()
  for (const slice of slicesNaming(world, pod)) {
    const service = serviceOf(world, slice)
    if (!service) continue
    for (const endpoint of slice.endpoints) {
      if (!refersTo(endpoint, slice, pod)) continue
      const key = addPorts(ports, service, slice, clusterDomain)
      parts.set(key, joined(parts.get(key), endpoint, service))
    }
  }
  return { services: inOrder(ports), parts: new Map([...parts].sort(byName)) }
}

/** Slices of both families tell of the same endpoint, one perhaps later than the other: the more cautious holds. */
function joined(before: ServicePart | undefined, endpoint: SliceEndpoint, service: KubeService): ServicePart {
  const { forZones = [], forNodes = [] } = endpoint.hints ?? {}
  return {
    isReady: (before?.isReady ?? true) && endpoint.ready,
    isServing: (before?.isServing ?? true) && endpoint.serving,
    publishesNotReady: service.spec.publishNotReadyAddresses,
    zones: [...new Set([...(before?.zones ?? []), ...forZones])].sort(),
    nodes: [...new Set([...(before?.nodes ?? []), ...forNodes])].sort(),
  }
}

function* slicesNaming(world: World, pod: KubePod): Generator<KubeEndpointSlice> {
  const found = new Set(world.slicesOfPod(objectKey(pod.metadata)))
  yield* found
  if (pod.spec.hostNetwork) return
  for (const ip of pod.status.podIPs)
    for (const slice of world.slicesAt(ip)) {
      if (found.has(slice)) continue
      found.add(slice)
      yield slice
    }
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

/** An endpoint that somebody wrote by hand, as an address, is the pod that has the address. */
function refersTo(endpoint: SliceEndpoint, slice: KubeEndpointSlice, pod: KubePod): boolean {
  const ref = endpoint.targetRef
  if (ref?.kind !== 'Pod') return endpoint.addresses.some(ip => pod.status.podIPs.includes(ip))
  return (
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
): string {
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
  return key
}

function inOrder(ports: ReadonlyMap<string, PortList>): Record<string, PortList> {
  const sorted = [...ports].sort(byName)
  for (const [, list] of sorted) list.ports.sort((a, b) => a.servicePort - b.servicePort)
  return Object.fromEntries(sorted)
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1
}
