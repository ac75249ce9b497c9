/**
 * Workloads by uid and by address.
 *
 * An address may have two owners for a while: a pod's address is given to another pod before the first one's
 * deletion is heard. The later arrival wins, and one that is being deleted loses to one that is not; when the
 * winner goes, whoever of the others still exists has the address again. What is no pod, but an address that somebody
 * wrote into an object, loses to every pod: nobody takes a pod's address from it by naming it.
 * A host-network workload's address is its node's: it never answers for the address as a pod.
 */
import type { ChangeLog } from './changes.ts'
import type { HostPort, Workload } from './records.ts'

export interface HostPortTarget {
  readonly workload: Workload
  /** Of the pod. */
  readonly port: number
}

export class Workloads {
  readonly #changes: ChangeLog
  readonly #network: string
  readonly #byUid = new Map<string, Workload>()
  // An array only where an address has several owners, in the order of their arrival.
  readonly #byIp = new Map<string, Workload | Workload[]>()
  readonly #hostNetwork = new Map<string, Workload[]>()
  // By node and port; several, on addresses of their own each, or one after the other.
  readonly #hostPorts = new Map<string, { readonly workload: Workload; readonly hostPort: HostPort }[]>()

  /** @param network ours: workloads of others are kept, but not found by address */
  constructor(changes: ChangeLog, network: string) {
    this.#changes = changes
    this.#network = network
  }

  get size(): number {
    return this.#byUid.size
  }

  get addressCount(): number {
    return this.#byIp.size
  }

  values(): MapIterator<Workload> {
    return this.#byUid.values()
  }

  byUid(uid: string): Workload | undefined {
    return this.#byUid.get(uid)
  }

  /** The pod that has the address (canonical text), if one is known. */
  byIp(ip: string): Workload | undefined {
    const owners = this.#byIp.get(ip)
    if (!Array.isArray(owners)) return owners
    return (
      owners.findLast(owner => owner.isPod && !owner.details?.terminating) ??
      owners.findLast(owner => owner.isPod) ??
      owners.at(-1)
    )
  }

  /** Every pod that has or had the address. */
  podsAt(ip: string): readonly Workload[] {
    const owners = this.#byIp.get(ip)
    if (owners === undefined) return []
    return Array.isArray(owners) ? owners : [owners]
  }

  allOfHostNetworkAt(ip: string): readonly Workload[] {
    return this.#hostNetwork.get(ip) ?? []
  }

  /** A host-network workload at the address, if one is known. */
  hostNetworkAt(ip: string): Workload | undefined {
    return this.#hostNetwork.get(ip)?.at(-1)
  }

  /** Every pod that the port of the node leads to, at whichever of its addresses. */
  allAtHostPort(node: string, port: number): readonly Workload[] {
    return (this.#hostPorts.get(`${node} ${port}`) ?? []).map(({ workload }) => workload)
  }

  /** The pod that a port of a node leads to, at one of its addresses. */
  atHostPort(node: string, ip: string, port: number): HostPortTarget | undefined {
    const found = this.#hostPorts
      .get(`${node} ${port}`)
      ?.findLast(({ hostPort }) => (hostPort.ip ?? ip) === ip)
    return found && { workload: found.workload, port: found.hostPort.target }
  }

  /** Adds or replaces. Gives the one replaced; `'same'` when nothing changed. */
  put(workload: Workload): Workload | 'same' | undefined {
    const before = this.#byUid.get(workload.uid)
    if (before && isSame(before, workload)) return 'same'
    this.#byUid.set(workload.uid, workload)
    // Another pod under the same name, as a StatefulSet makes them, is a new arrival at its address.
    const isSamePod = before !== undefined && before.details?.podUid === workload.details?.podUid
    const oldIps = before ? this.#indexedIps(before) : []
    const newIps = this.#indexedIps(workload)
    for (const ip of oldIps) if (!isSamePod || !newIps.includes(ip)) this.#release(ip, before!)
    for (const ip of newIps) {
      if (isSamePod && oldIps.includes(ip)) this.#replace(ip, before, workload)
      else this.#claim(ip, workload)
    }
    if (before) this.#moveHostNetwork(before, undefined)
    this.#moveHostNetwork(undefined, workload)
    this.#moveHostPorts(before, workload)
    return before
  }

  /** Gives the one removed. */
  remove(uid: string): Workload | undefined {
    const before = this.#byUid.get(uid)
    if (!before) return undefined
    this.#byUid.delete(uid)
    for (const ip of this.#indexedIps(before)) this.#release(ip, before)
    this.#moveHostNetwork(before, undefined)
    this.#moveHostPorts(before, undefined)
    return before
  }

  #indexedIps(workload: Workload): readonly string[] {
    return workload.hostNetwork || workload.network !== this.#network ? [] : workload.ips
  }

  #claim(ip: string, workload: Workload): void {
    const owners = this.#byIp.get(ip)
    if (!owners) this.#byIp.set(ip, workload)
    else if (Array.isArray(owners)) owners.push(workload)
    else if (owners !== workload) this.#byIp.set(ip, [owners, workload])
    this.#changes.ip(ip)
  }

  #replace(ip: string, before: Workload, after: Workload): void {
    const owners = this.#byIp.get(ip)
    if (Array.isArray(owners)) owners[owners.indexOf(before)] = after
    else this.#byIp.set(ip, after)
    this.#changes.ip(ip)
  }

  #release(ip: string, workload: Workload): void {
    const owners = this.#byIp.get(ip)
    if (Array.isArray(owners)) {
      const left = owners.filter(owner => owner !== workload)
      this.#byIp.set(ip, left.length === 1 ? left[0]! : left)
    } else if (owners === workload) {
      this.#byIp.delete(ip)
    }
    this.#changes.ip(ip)
  }

  #moveHostNetwork(before: Workload | undefined, after: Workload | undefined): void {
    for (const ip of before?.hostNetwork ? before.ips : []) {
      const left = this.#hostNetwork.get(ip)?.filter(each => each !== before) ?? []
      if (left.length > 0) this.#hostNetwork.set(ip, left)
      else this.#hostNetwork.delete(ip)
      this.#changes.ip(ip)
    }
    for (const ip of after?.hostNetwork && after.network === this.#network ? after.ips : []) {
      this.#hostNetwork.set(ip, [...(this.#hostNetwork.get(ip) ?? []), after!])
      this.#changes.ip(ip)
    }
  }

  #moveHostPorts(before: Workload | undefined, after: Workload | undefined): void {
    for (const { port } of before?.details?.hostPorts ?? []) {
      const key = `${before!.node} ${port}`
      const left = this.#hostPorts.get(key)?.filter(({ workload }) => workload !== before) ?? []
      if (left.length > 0) this.#hostPorts.set(key, left)
      else this.#hostPorts.delete(key)
      this.#changes.broad() // which addresses the node has is known elsewhere, and few pods have such ports
    }
    for (const hostPort of after?.details?.hostPorts ?? []) {
      const key = `${after!.node} ${hostPort.port}`
      this.#hostPorts.set(key, [...(this.#hostPorts.get(key) ?? []), { workload: after!, hostPort }])
      this.#changes.broad()
    }
  }
}

/** Reports whether two records say the same: what a server sends again in full need not disturb anyone. */
function isSame(a: Workload, b: Workload): boolean {
  return (
    a.name === b.name &&
    a.namespace === b.namespace &&
    a.serviceAccount === b.serviceAccount &&
    a.identity === b.identity &&
    a.network === b.network &&
    a.tunnelled === b.tunnelled &&
    a.hostNetwork === b.hostNetwork &&
    a.healthy === b.healthy &&
    a.capacity === b.capacity &&
    a.node === b.node &&
    a.cluster === b.cluster &&
    a.workloadName === b.workloadName &&
    a.ips.length === b.ips.length &&
    a.ips.every((ip, at) => ip === b.ips[at]) &&
    // Shared between records, so that one object means one content.
    a.memberships === b.memberships &&
    a.policies === b.policies &&
    a.locality === b.locality &&
    a.waypoint?.text === b.waypoint?.text &&
    a.details?.podUid === b.details?.podUid &&
    a.details?.enrolment === b.details?.enrolment &&
    a.details?.probePorts === b.details?.probePorts &&
    a.details?.terminating === b.details?.terminating &&
    a.details?.serving === b.details?.serving &&
    a.details?.hostPorts === b.details?.hostPorts
  )
}
