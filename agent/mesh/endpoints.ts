/**
 * From a service and a port to the endpoints a connection may go to. Lists are made once for each state of a
 * service and shared by every decision until it changes: a service can have ten thousand of them.
 *
 * Who is chosen from is what kube-proxy would choose from: the ready ones; of those, the ones that slices or the service
 * say are near; and without any ready one, those on their way out that still answer.
 */
import { PORT } from '../ports.ts'
import type { Endpoint } from '../worker/messages.ts'
import {
  peerOf,
  type LocalityScope,
  type Locality,
  type Readiness,
  type Service,
  type Workload,
} from './records.ts'
import type { Member, ServiceEntry } from './services.ts'

/**
 * Most endpoints of one decision. Decisions are copied to the data-plane threads, at some microseconds for each
 * endpoint; the nodes of a cluster that has services of this size together still reach all of them.
 */
const MAX_ENDPOINTS = 1000

/** Where a connection comes from, as far as the choice of endpoints depends on it. */
export interface Origin {
  readonly locality: Locality
  readonly node: string
  readonly cluster: string
  readonly network: string
}

/** What was dialled of a service. */
export interface Dialled {
  /** An endpoint with addresses of both families is dialled on that of this address. */
  readonly ip: string
  /** The service's. */
  readonly port: number
  /** By an address or port that the service has for the outside: `internalTrafficPolicy` is not about those. */
  readonly isExternal: boolean
}

interface Candidate {
  readonly member: Member
  readonly ip: string
  readonly port: number
}

export type EndpointAnswer =
  | {
      readonly kind: 'endpoints'
      /** Never empty. */
      readonly all: readonly Endpoint[]
      /** Those of `all` that may be reached although mTLS is required. May be empty. */
      readonly required: readonly Endpoint[]
    }
  | { readonly kind: 'none'; readonly reason: 'no-endpoint' | 'unreachable'; readonly detail: string }

/** Reports whether an address lies in the ranges of the cluster's pods and services. */
export type IsInCluster = (ip: string) => boolean

/** The endpoints of a service for one of its ports, as near as its mode asks for. */
export function endpointsOf(
  entry: ServiceEntry & { service: Service },
  dialled: Dialled,
  origin: Origin,
  isInCluster: IsInCluster,
): EndpointAnswer {
  const { service } = entry
  const { ip, port, isExternal } = dialled
  const key = [port, ip.includes(':'), isExternal, originKey(origin)].join(' ')
  const kept = entry.answers.get(key)
  if (kept) return kept
  const answer = build(entry, dialled, origin, isInCluster)
  // Ports that the service does not have are the client's to choose: not kept.
  if (answer.kind === 'endpoints' || service.ports.has(port)) entry.answers.set(key, answer)
  return answer
}

/** The endpoint that a workload is when its own address was dialled, or a port of its node that leads to it. */
export function endpointAt(workload: Workload, ip: string, port: number, isInCluster: IsInCluster): Endpoint {
  return endpoint(workload, ip, port, 1, [], isInCluster)
}

/** Reports whether an endpoint may be reached although mTLS is required: in a tunnel, or not of the cluster at all. */
export function satisfiesRequire({ via }: Endpoint): boolean {
  return via.kind === 'hbone' || via.reason === 'peer-external'
}

function build(
  entry: ServiceEntry & { service: Service },
  { ip: dialledIp, port, isExternal }: Dialled,
  origin: Origin,
  isInCluster: IsInCluster,
): EndpointAnswer {
  const { service } = entry
  const isV6 = dialledIp.includes(':')
  const target = service.ports.get(port)
  const out = { port: 0, unhealthy: 0, otherNetwork: 0, other: 0 }
  const ready: Candidate[] = []
  const leaving: Candidate[] = []
  for (const member of entry.members.values()) {
    const { workload, part } = member
    const memberPort = part.ports.get(port) || target || 0
    const ip = workload.ips.find(each => each.includes(':') === isV6) ?? workload.ips[0]
    const readiness = service.allowUnhealthy ? 'ready' : readinessOf(member)
    if (memberPort === 0) out.port++
    else if (readiness === 'not-ready') out.unhealthy++
    else if (workload.network !== origin.network) out.otherNetwork++
    else if (ip === undefined || workload.capacity === 0) out.other++
    else (readiness === 'ready' ? ready : leaving).push({ member, ip, port: memberPort })
  }
  const mode = isExternal && service.mode === 'strict' ? 'standard' : service.mode
  const preferred = mode === 'strict' ? ready : hinted(ready, origin)
  let chosen = nearest(preferred, mode, service.preference, origin)
  if (chosen.length === 0) chosen = nearest(leaving, mode, service.preference, origin)
  if (chosen.length > 0) {
    const all = someOf(chosen).map(({ member: { workload }, ip, port }) =>
      endpoint(workload, ip, port, workload.capacity, service.identities, isInCluster),
    )
    return { kind: 'endpoints', all, required: all.filter(satisfiesRequire) }
  }

  const name = `service ${service.info.namespace}/${service.info.name}`
  if (target === undefined && out.port === entry.members.size)
    return { kind: 'none', reason: 'no-endpoint', detail: `${name} has no port ${port}` }
  if (out.otherNetwork > 0)
    return { kind: 'none', reason: 'unreachable', detail: `${name} has endpoints on other networks only` }
  const outOfReach = out.other + ready.length + leaving.length
  const causes = [
    out.unhealthy > 0 && `${out.unhealthy} not ready`,
    out.port > 0 && `${out.port} without port ${port}`,
    outOfReach > 0 && `${outOfReach} out of reach`,
  ].filter(cause => cause !== false)
  const why = causes.length > 0 ? `: ${causes.join(', ')}` : ''
  return { kind: 'none', reason: 'no-endpoint', detail: `${name} has no endpoint${why}` }
}

function readinessOf({ workload, part }: Member): Readiness {
  if (part.readiness) return part.readiness
  if (workload.healthy) return 'ready'
  return workload.details?.terminating && workload.details.serving ? 'serving' : 'not-ready'
}

/**
 * What the slices' hints leave: those for this node, else those for this zone. Hints count only when every endpoint
 * has one, and one of them is for us; else somebody's share would go to nobody.
 */
function hinted(ready: readonly Candidate[], { node, locality: { zone } }: Origin): readonly Candidate[] {
  for (const [kind, here] of [
    ['nodes', node],
    ['zones', zone],
  ] as const) {
    if (ready.some(({ member: { part } }) => part[kind].length === 0)) continue
    const ours = ready.filter(({ member: { part } }) => part[kind].includes(here))
    if (ours.length > 0) return ours
  }
  return ready
}

/** Those that share the most of the scopes, from the first on; strictly: that share all of them. */
function nearest(
  candidates: readonly Candidate[],
  mode: Service['mode'],
  scopes: readonly LocalityScope[],
  origin: Origin,
): readonly Candidate[] {
  if (mode === 'standard' || mode === 'passthrough') return candidates
  let best = mode === 'strict' ? scopes.length : 0
  let found: Candidate[] = []
  for (const candidate of candidates) {
    const { workload } = candidate.member
    const differs = scopes.findIndex(scope => valueOf(workload, scope) !== valueOf(origin, scope))
    const shared = differs < 0 ? scopes.length : differs
    if (shared < best) continue
    if (shared > best) [best, found] = [shared, []]
    found.push(candidate)
  }
  return found
}

/** All of them, or as many as a decision may carry: the tunnelled first, then by lot, which differs from node to node. */
function someOf(candidates: readonly Candidate[]): readonly Candidate[] {
  if (candidates.length <= MAX_ENDPOINTS) return candidates
  const order = ({ member }: Candidate) => member.lot + (member.workload.tunnelled ? 0 : 1)
  return candidates.toSorted((a, b) => order(a) - order(b)).slice(0, MAX_ENDPOINTS)
}

function endpoint(
  workload: Workload,
  ip: string,
  port: number,
  weight: number,
  identities: readonly string[],
  isInCluster: IsInCluster,
): Endpoint {
  const peer = peerOf(workload)
  if (workload.tunnelled && !workload.hostNetwork && workload.identity !== undefined) {
    const { identity } = workload
    return {
      ip,
      port,
      weight,
      peer: { ...peer, identity },
      via: {
        kind: 'hbone',
        port: PORT.hbone,
        identities: identities.length === 0 ? [identity] : [...new Set([identity, ...identities])],
      },
    }
  }
  return { ip, port, weight, peer, via: { kind: 'tcp', reason: plaintextReason(workload, ip, isInCluster) } }
}

/** An object of the cluster may name an address that is not of the cluster: a database, a managed API server. */
function plaintextReason({ hostNetwork, isPod }: Workload, ip: string, isInCluster: IsInCluster) {
  if (hostNetwork) return 'peer-host-network'
  return isPod || isInCluster(ip) ? 'peer-not-enrolled' : 'peer-external'
}

function originKey({ node, locality: { region, zone, subzone }, cluster, network }: Origin): string {
  return [node, region, zone, subzone, cluster, network].join('\n')
}

function valueOf(place: Origin, scope: LocalityScope): string {
  switch (scope) {
    case 'region':
    case 'zone':
    case 'subzone':
      return place.locality[scope]
    default:
      return place[scope]
  }
}
