/**
 * From a service and a port to the endpoints a connection may go to. Lists are made once for each state of a
 * service and shared by every decision until it changes: a service can have ten thousand of them.
 */
import { PORT } from '../ports.ts'
import type { Endpoint } from '../worker/messages.ts'
import { peerOf, type LocalityScope, type Locality, type Service, type Workload } from './records.ts'
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
      /** Those of `all` that are reached through a tunnel. May be empty. */
      readonly tunnelled: readonly Endpoint[]
    }
  | { readonly kind: 'none'; readonly reason: 'no-endpoint' | 'unreachable'; readonly detail: string }

/**
 * The endpoints of a service for one of its ports, of the best locality that its mode asks for.
 * An endpoint with addresses of both families is dialled on that of `ip`, the address the client dialled.
 */
export function endpointsOf(
  entry: ServiceEntry & { service: Service },
  ip: string,
  port: number,
  origin: Origin,
): EndpointAnswer {
  const { service } = entry
  const isV6 = ip.includes(':')
  const key = `${port} ${isV6} ${localityKey(service, origin)}`
  const kept = entry.answers.get(key)
  if (kept) return kept
  const answer = build(entry, isV6, port, origin)
  // Ports that the service does not have are the client's to choose: not kept.
  if (answer.kind === 'endpoints' || service.ports.has(port)) entry.answers.set(key, answer)
  return answer
}

/** The endpoint that a workload is when its own address was dialled. */
export function endpointAt(workload: Workload, ip: string, port: number): Endpoint {
  return endpoint(workload, ip, port, 1, [])
}

function build(
  entry: ServiceEntry & { service: Service },
  isV6: boolean,
  port: number,
  origin: Origin,
): EndpointAnswer {
  const { service } = entry
  const target = service.ports.get(port)
  const out = { port: 0, unhealthy: 0, otherNetwork: 0, other: 0 }
  let best = 0
  let candidates: Candidate[] = []
  for (const member of entry.members.values()) {
    const { workload } = member
    const memberPort = member.ports.get(port) || target || 0
    const ip = workload.ips.find(each => each.includes(':') === isV6) ?? workload.ips[0]
    if (memberPort === 0) out.port++
    else if (!workload.healthy && !service.allowUnhealthy) out.unhealthy++
    else if (workload.network !== origin.network) out.otherNetwork++
    else if (ip === undefined || workload.capacity === 0) out.other++
    else {
      const rank = rankOf(service, member, origin)
      if (rank === undefined || rank < best) {
        out.other++
        continue
      }
      if (rank > best) [best, candidates] = [rank, []]
      candidates.push({ member, ip, port: memberPort })
    }
  }
  if (candidates.length > 0) {
    const all = someOf(candidates).map(({ member: { workload }, ip, port }) =>
      endpoint(workload, ip, port, workload.capacity, service.identities),
    )
    return { kind: 'endpoints', all, tunnelled: all.filter(each => each.via.kind === 'hbone') }
  }

  const name = `service ${service.info.namespace}/${service.info.name}`
  if (target === undefined && out.port === entry.members.size)
    return { kind: 'none', reason: 'no-endpoint', detail: `${name} has no port ${port}` }
  if (out.otherNetwork > 0)
    return { kind: 'none', reason: 'unreachable', detail: `${name} has endpoints on other networks only` }
  const causes = [
    out.unhealthy > 0 && `${out.unhealthy} not ready`,
    out.port > 0 && `${out.port} without port ${port}`,
    out.other > 0 && `${out.other} out of reach`,
  ].filter(cause => cause !== false)
  const why = causes.length > 0 ? `: ${causes.join(', ')}` : ''
  return { kind: 'none', reason: 'no-endpoint', detail: `${name} has no endpoint${why}` }
}

/** All of them, or as many as a decision may carry: the tunnelled first, then by lot, which differs from node to node. */
function someOf(candidates: Candidate[]): readonly Candidate[] {
  if (candidates.length <= MAX_ENDPOINTS) return candidates
  const order = ({ member }: Candidate) => member.lot + (member.workload.tunnelled ? 0 : 1)
  return candidates.sort((a, b) => order(a) - order(b)).slice(0, MAX_ENDPOINTS)
}

function endpoint(
  workload: Workload,
  ip: string,
  port: number,
  weight: number,
  identities: readonly string[],
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
  const reason = workload.hostNetwork ? 'peer-host-network' : 'peer-not-enrolled'
  return { ip, port, weight, peer, via: { kind: 'tcp', reason } }
}

/**
 * How many of the service's preferred scopes, from the first on, the endpoint shares with the origin.
 * Undefined when the service demands all of them and one differs.
 */
function rankOf(service: Service, { workload }: Member, origin: Origin): number | undefined {
  if (service.mode === 'standard' || service.mode === 'passthrough') return 0
  let rank = 0
  for (const scope of service.preference) {
    if (valueOf(workload, scope) !== valueOf(origin, scope)) break
    rank++
  }
  return service.mode === 'strict' && rank < service.preference.length ? undefined : rank
}

function localityKey(service: Service, origin: Origin): string {
  return service.mode === 'standard' ? '' : service.preference.map(scope => valueOf(origin, scope)).join('\n')
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
