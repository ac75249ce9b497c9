/**
 * Where a captured outbound connection goes, in this order: never to the agent's own ports; excluded ports and
 * ranges as they are; a service's address to one of its endpoints; a pod's address to the pod; a load balancer's
 * address, or a port that every node or the pod's own has for it, to what is behind, as kube-proxy would on the node;
 * anything else to where it was going, under the reason that tells the most. Under `require`, nothing that is the
 * cluster's is reached in the clear, except what was excluded by name, and the API server: it has TLS of its own, and a
 * pod that loses it is broken.
 *
 * One thing is never done: to go around a waypoint, or to another network, in silence. The agent speaks to
 * neither, so it says so and refuses.
 */
import { isLoopback } from '../../lib/address.ts'
import type { PlaintextReason } from '../../lib/reasons.ts'
import { AGENT_PORTS } from '../ports.ts'
import type { Endpoint, PeerInfo, RouteDecision, ServiceInfo } from '../worker/messages.ts'
import { endpointAt, endpointsOf, satisfiesRequire, type Dialled } from './endpoints.ts'
import type { RoutedPod } from './local-pod.ts'
import type { Mesh } from './mesh.ts'
import { peerOf, type Service, type Waypoint, type Workload } from './records.ts'
import type { ServiceEntry } from './services.ts'

export interface OutboundAnswer {
  readonly decision: RouteDecision
  /** The answer may be other once discovery has said more: worth waiting a little for. */
  readonly isUncertain: boolean
  /** Key of the service the answer depends on. */
  readonly service?: string
  /** The endpoints are of a service with session affinity. */
  readonly hasAffinity?: boolean
}

/** Decides from what is known now. `ip` is canonical text. */
export function decideOutbound(mesh: Mesh, from: RoutedPod, ip: string, port: number): OutboundAnswer {
  const { pod } = from
  const entry = mesh.services.byVip(ip, pod.namespace)
  const workload = mesh.workloads.byIp(ip)

  if (isLoopback(ip)) return certain(selfCall(`${ip} is loopback`))
  if (AGENT_PORTS.has(port) && (workload || pod.ips.includes(ip) || mesh.nodes.isInCluster(ip)))
    return certain(selfCall(`port ${port} of a pod is the agent's own`))
  if (pod.ips.includes(ip)) return certain(plain(ip, port, 'peer-not-enrolled', workload && peerOf(workload)))

  const excluded = exclusion(from, ip, port)
  if (excluded) {
    const info = typeof entry === 'object' ? entry.service?.info : undefined
    const decision = plain(ip, port, excluded, workload && peerOf(workload), info)
    // Nothing that may be known of it matters, but for the ports above.
    return { decision, isUncertain: AGENT_PORTS.has(port) && mesh.isAwaited(ip, port) }
  }

  const answer = byAddress(mesh, from, entry, workload, ip, port)
  if (!mesh.isAwaited(ip, port)) return answer
  // A pod at the far end of a tunnel proves who it is. Anything else is not said while the server may know better.
  const isProved =
    entry === undefined && workload?.isPod && !workload.details?.terminating && isTunnel(answer.decision)
  return isProved ? answer : { ...answer, isUncertain: true }
}

function byAddress(
  mesh: Mesh,
  from: RoutedPod,
  entry: ServiceEntry | 'hidden' | undefined,
  workload: Workload | undefined,
  ip: string,
  port: number,
): OutboundAnswer {
  if (typeof entry === 'object' && hasService(entry)) {
    if (entry.service.mode !== 'passthrough')
      return toService(mesh, from, entry, { ip, port, isExternal: false })
    const reason = mesh.nodes.isInCluster(ip) ? 'peer-unknown' : 'peer-external'
    return { ...toAddress(mesh, from, workload, ip, port, reason), service: entry.key }
  }
  if (entry === undefined && workload === undefined) {
    const external = mesh.services.byExternalIp(ip, port)
    if (external && hasService(external))
      return toService(mesh, from, external, { ip, port, isExternal: true })
  }
  return toAddress(mesh, from, workload, ip, port, entry === 'hidden' ? 'peer-unknown' : undefined)
}

function toService(
  mesh: Mesh,
  from: RoutedPod,
  entry: ServiceEntry & { service: Service },
  dialled: Dialled,
): OutboundAnswer {
  const { info, waypoint } = entry.service
  const dependsOn = { service: entry.key }
  if (waypoint && !isItself(mesh, from, waypoint))
    return {
      ...certain(behindWaypoint(`service ${info.namespace}/${info.name}`, waypoint, info)),
      ...dependsOn,
    }
  const answer = endpointsOf(entry, dialled, mesh.originOf(from.pod), mesh.isInCluster)
  if (answer.kind === 'none') {
    const { reason, detail } = answer
    const decision: RouteDecision = { kind: 'refuse', reason, detail, service: info }
    // Before the first full picture the endpoints may just not have come yet.
    return { decision, isUncertain: !mesh.isSynced, ...dependsOn }
  }
  const isRequired = from.enrolment.requireOutbound && !isApiServer(info)
  const endpoints = isRequired ? answer.required : answer.all
  if (endpoints.length > 0) {
    const hasAffinity = entry.service.clientAffinity
    return { ...certain({ kind: 'forward', endpoints, service: info }), ...dependsOn, hasAffinity }
  }
  const detail = `service ${info.namespace}/${info.name} has no enrolled endpoint, and mTLS is required`
  return { ...certain({ kind: 'refuse', reason: 'strict', detail, service: info }), ...dependsOn }
}

/** @param serviceReason set when the address is a service's but none of its endpoints is to be chosen */
function toAddress(
  mesh: Mesh,
  from: RoutedPod,
  workload: Workload | undefined,
  ip: string,
  port: number,
  serviceReason?: PlaintextReason,
): OutboundAnswer {
  const { requireOutbound } = from.enrolment
  if (workload) {
    const { waypoint } = workload
    if (waypoint && !isItself(mesh, from, waypoint)) {
      const name = `pod ${workload.namespace}/${workload.name}`
      return certain(behindWaypoint(name, waypoint, undefined, peerOf(workload)))
    }
    return toEndpoint(from, workload, endpointAt(workload, ip, port, mesh.isInCluster))
  }

  const node = mesh.nodes.at(ip)
  const neighbour = mesh.workloads.hostNetworkAt(ip)
  if (node || neighbour) {
    const behind = behindNode(mesh, from, node?.name, ip, port)
    if (behind) return behind
    const peer: PeerInfo = { node: node?.name ?? neighbour?.node }
    if (requireOutbound) return certain(required(ip, 'is a node of the cluster', peer))
    return certain(plain(ip, port, 'peer-host-network', peer))
  }

  if (serviceReason) {
    if (requireOutbound) return certain(required(ip, 'is a service that is not reached through the mesh'))
    return certain(plain(ip, port, serviceReason))
  }
  // Before the server has told all that it knows nobody can say what is outside.
  if (mesh.nodes.isInCluster(ip) || !mesh.knows(ip, port)) {
    const decision = requireOutbound
      ? required(ip, 'is not known to discovery')
      : plain(ip, port, 'peer-unknown')
    return { decision, isUncertain: true }
  }
  return certain(plain(ip, port, 'peer-external'))
}

function toEndpoint(from: RoutedPod, workload: Workload, endpoint: Endpoint): OutboundAnswer {
  if (!from.enrolment.requireOutbound || satisfiesRequire(endpoint))
    return certain({ kind: 'forward', endpoints: [endpoint] })
  const [other] = workload.details?.enrolment?.problems.slice(-1) ?? []
  const why = other === undefined ? 'is not enrolled' : `is not enrolled (${other})`
  return certain(required(`pod ${workload.namespace}/${workload.name}`, why, endpoint.peer))
}

/** What a port of a node leads to: a service's on every node, or a pod's on its own. */
function behindNode(
  mesh: Mesh,
  from: RoutedPod,
  node: string | undefined,
  ip: string,
  port: number,
): OutboundAnswer | undefined {
  const service = mesh.services.byNodePort(port)
  if (service && hasService(service.entry))
    return toService(mesh, from, service.entry, { ip, port: service.port, isExternal: true })
  const target = node === undefined ? undefined : mesh.workloads.atHostPort(node, ip, port)
  if (!target) return undefined
  const { workload } = target
  const podIp = workload.ips.find(each => each.includes(':') === ip.includes(':'))
  if (podIp === undefined) return undefined
  return toEndpoint(from, workload, endpointAt(workload, podIp, target.port, mesh.isInCluster))
}

/** `kubernetes.default`, which the API server itself keeps. */
function isApiServer({ namespace, name }: ServiceInfo): boolean {
  return namespace === 'default' && name === 'kubernetes'
}

function isTunnel(decision: RouteDecision): boolean {
  return decision.kind === 'forward' && decision.endpoints.every(({ via }) => via.kind === 'hbone')
}

function exclusion({ excludedOutbound, excludedRanges }: RoutedPod, ip: string, port: number) {
  if (excludedOutbound.has(port)) return 'excluded-port'
  return excludedRanges.some(range => range.contains(ip)) ? 'excluded-cidr' : undefined
}

function hasService(entry: ServiceEntry): entry is ServiceEntry & { service: Service } {
  return entry.service !== undefined
}

/** Reports whether the pod is the waypoint: what it sends on has passed it already. */
function isItself(mesh: Mesh, { pod }: RoutedPod, waypoint: Waypoint): boolean {
  if (waypoint.ip !== undefined && pod.ips.includes(waypoint.ip)) return true
  return mesh.workloadOf(pod)?.memberships.some(each => each.service === waypoint.service) ?? false
}

function behindWaypoint(
  name: string,
  waypoint: Waypoint,
  service?: ServiceInfo,
  peer?: PeerInfo,
): RouteDecision {
  const detail = `${name} is served by waypoint ${waypoint.text}, and waypoints are not supported`
  return { kind: 'refuse', reason: 'unreachable', detail, service, peer }
}

function selfCall(why: string): RouteDecision {
  return { kind: 'refuse', reason: 'policy', detail: `self call: ${why}` }
}

function required(name: string, why: string, peer?: PeerInfo): RouteDecision {
  return { kind: 'refuse', reason: 'strict', detail: `${name} ${why}, and mTLS is required`, peer }
}

function plain(
  ip: string,
  port: number,
  reason: PlaintextReason,
  peer: PeerInfo = {},
  service?: ServiceInfo,
): RouteDecision {
  const endpoint: Endpoint = { ip, port, weight: 1, peer, via: { kind: 'tcp', reason } }
  return { kind: 'forward', endpoints: [endpoint], service }
}

function certain(decision: RouteDecision): OutboundAnswer {
  return { decision, isUncertain: false }
}
