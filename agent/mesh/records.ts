/**
 * What the agent keeps of each discovered resource: plain objects with the fields that decisions need, in
 * canonical form, sharing what they have in common. The messages they came from are not kept.
 */
import type { Cidr } from '../../lib/address.ts'
import type { Enrolment, EnrolmentWishes } from '../../lib/enrolment.ts'
import type { PeerInfo, ServiceInfo } from '../worker/messages.ts'

export interface Locality {
  readonly region: string
  readonly zone: string
  readonly subzone: string
}

/** Service port to target port; 0 where the target is not said here. */
export type PortMap = ReadonlyMap<number, number>

/** `serving`: on its way out, and still answering: for services that have nothing better left. */
export type Readiness = 'ready' | 'serving' | 'not-ready'

/** A workload's part in one service. */
export interface Membership {
  /** `<namespace>/<hostname>` */
  readonly service: string
  readonly ports: PortMap
  /** Undefined: as the workload is. */
  readonly readiness: Readiness | undefined
  /** Zones and nodes whose clients are to prefer it. */
  readonly zones: readonly string[]
  readonly nodes: readonly string[]
}

/** A port of the pod's node that leads to the pod. */
export interface HostPort {
  readonly port: number
  readonly target: number
  /** Undefined: on every address of the node. */
  readonly ip: string | undefined
}

/** What Culvert's own server adds to a workload. Absent when the server is another. */
export interface WorkloadDetails {
  readonly podUid: string
  /** What the annotations of pod and namespace ask for; undefined when the server did not say. */
  readonly enrolment: Enrolment | undefined
  readonly probePorts: readonly number[]
  readonly terminating: boolean
  /** It answers, be it ready or on its way out. */
  readonly serving: boolean
  readonly hostPorts: readonly HostPort[]
}

/** Where a waypoint is: `<namespace>/<hostname>`, or an address. */
export interface Waypoint {
  readonly service: string | undefined
  readonly ip: string | undefined
  /** For people. */
  readonly text: string
}

export interface Workload {
  /** `<cluster>//Pod/<namespace>/<name>`; also the resource's name. */
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
  /** A pod, and not an address that a slice or another object names. */
  readonly isPod: boolean
  /** SPIFFE ID; undefined when the service account has no legal one, which a tunnelled workload always has. */
  readonly identity: string | undefined
  /** Canonical text. Of a host-network workload: the node's. */
  readonly ips: readonly string[]
  readonly network: string
  /** Speaks HBONE on its own port 15008. */
  readonly tunnelled: boolean
  readonly hostNetwork: boolean
  readonly healthy: boolean
  /** Weight among the endpoints of a service. */
  readonly capacity: number
  readonly node: string
  readonly cluster: string
  /** The Deployment, Job or the like that the pod belongs to, else the pod. */
  readonly workloadName: string
  readonly locality: Locality
  readonly memberships: readonly Membership[]
  /** `<namespace>/<name>` of the policies that select it. */
  readonly policies: readonly string[]
  readonly waypoint: Waypoint | undefined
  readonly details: WorkloadDetails | undefined
}

export type LocalityScope = 'region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network'

export interface Service {
  /** `<namespace>/<hostname>`; also the resource's name. */
  readonly key: string
  readonly info: ServiceInfo
  /** Single addresses of our own network. */
  readonly vips: readonly string[]
  /** Ranges of our own network. */
  readonly ranges: readonly Cidr[]
  readonly ports: PortMap
  /** SPIFFE IDs that its endpoints may present besides their own. */
  readonly identities: readonly string[]
  readonly mode: 'standard' | 'strict' | 'failover' | 'passthrough'
  readonly preference: readonly LocalityScope[]
  readonly allowUnhealthy: boolean
  /** A client's connections all go to the same endpoint, as long as it is there. */
  readonly clientAffinity: boolean
  /** Addresses that are the service's by its ports only. */
  readonly externalIps: readonly string[]
  /** Service port by the port that it has on every node. */
  readonly nodePorts: ReadonlyMap<number, number>
  readonly canonical: boolean
  /** Only pods of its own namespace see its addresses. */
  readonly namespaceOnly: boolean
  readonly waypoint: Waypoint | undefined
}

export type TextMatch =
  { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly text: string } | { readonly kind: 'presence' }

export interface AccountMatch {
  readonly namespace: string
  readonly serviceAccount: string
}

/** One field of a match: a connection passes when some of `any` match, or `any` is empty, and none of `none`. */
export interface FieldMatch<T> {
  readonly any: readonly T[]
  readonly none: readonly T[]
}

/** Absent fields say nothing. */
export interface PolicyMatch {
  readonly namespaces?: FieldMatch<TextMatch>
  readonly accounts?: FieldMatch<AccountMatch>
  readonly principals?: FieldMatch<TextMatch>
  readonly sourceIps?: FieldMatch<Cidr>
  readonly destinationIps?: FieldMatch<Cidr>
  readonly destinationPorts?: FieldMatch<number>
}

export interface Policy {
  /** `<namespace>/<name>`; also the resource's name. */
  readonly key: string
  readonly namespace: string
  readonly scope: 'global' | 'namespace' | 'selector'
  readonly action: 'allow' | 'deny'
  readonly dryRun: boolean
  /** Rules (OR) of clauses (AND) of matches (OR). A match without any field never matches. */
  readonly rules: readonly (readonly (readonly PolicyMatch[])[])[]
}

export interface NamespaceRecord {
  readonly name: string
  readonly wishes: EnrolmentWishes
}

export interface NodeRecord {
  readonly name: string
  readonly ips: readonly string[]
  readonly podCidrs: readonly Cidr[]
}

export interface TrustBundleRecord {
  readonly trustDomain: string
  /** PEM. */
  readonly roots: readonly string[]
}

/** Who a workload is, for logs and metrics. The identity is left out: it is for whoever verified it to say. */
export function peerOf(workload: Workload): PeerInfo {
  return {
    workload: workload.workloadName,
    namespace: workload.namespace,
    node: workload.node || undefined,
    cluster: workload.cluster || undefined,
  }
}
