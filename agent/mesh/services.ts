/**
 * Services by key and by VIP, each with the workloads that belong to it. A service may be heard of before its
 * endpoints, and endpoints before their service: either waits here for the other.
 */
import type { ChangeLog } from './changes.ts'
import { CidrMap } from './cidr-map.ts'
import type { EndpointAnswer } from './endpoints.ts'
import type { PortMap, Service, Workload } from './records.ts'

export interface Member {
  readonly workload: Workload
  readonly ports: PortMap
  /** Drawn when the member came, 0..1: who is chosen when there are too many, the same ones each time. */
  readonly lot: number
}

export interface ServiceEntry {
  readonly key: string
  /** Undefined while only endpoints have been heard of. */
  service: Service | undefined
  /** By uid. */
  readonly members: Map<string, Member>
  /** Answers made from this entry; emptied when it changes. */
  readonly answers: Map<string, EndpointAnswer>
}

export class Services {
  readonly #changes: ChangeLog
  readonly #entries = new Map<string, ServiceEntry>()
  readonly #byVip = new Map<string, ServiceEntry[]>()
  readonly #byRange = new CidrMap<ServiceEntry>()
  #serviceCount = 0

  constructor(changes: ChangeLog) {
    this.#changes = changes
  }

  get size(): number {
    return this.#serviceCount
  }

  values(): MapIterator<ServiceEntry> {
    return this.#entries.values()
  }

  /** The service `<namespace>/<hostname>`, also when only endpoints of it are known. */
  byKey(key: string): ServiceEntry | undefined {
    return this.#entries.get(key)
  }

  /**
   * The service that has the address, as a pod of the namespace sees it: a single address before a range, a
   * longer range before a shorter; among several that share it, one that is private to the namespace, then one
   * of the namespace, then a canonical one, then the first by key. `'hidden'`: a VIP, but not for that namespace.
   */
  byVip(ip: string, namespace: string): ServiceEntry | 'hidden' | undefined {
    const exact = this.#byVip.get(ip)
    const visible = exact && prefer(exact, namespace)
    if (visible) return visible
    let isHidden = exact !== undefined
    for (const entries of this.#byRange.lookup(ip)) {
      const visible = prefer(entries, namespace)
      if (visible) return visible
      isHidden = true
    }
    return isHidden ? 'hidden' : undefined
  }

  /** Adds or replaces a service. */
  put(service: Service): void {
    const entry = this.#entry(service.key)
    if (entry.service) this.#dropAddresses(entry, entry.service)
    else this.#serviceCount++
    entry.service = service
    for (const vip of service.vips) {
      const entries = this.#byVip.get(vip)
      if (entries) entries.push(entry)
      else this.#byVip.set(vip, [entry])
      this.#changes.ip(vip)
    }
    for (const range of service.ranges) {
      this.#byRange.add(range, entry)
      this.#changes.broad()
    }
    this.#touch(entry)
  }

  remove(key: string): void {
    const entry = this.#entries.get(key)
    if (!entry?.service) return
    this.#dropAddresses(entry, entry.service)
    entry.service = undefined
    this.#serviceCount--
    this.#touch(entry)
    this.#dropEmpty(entry)
  }

  /** A workload came, changed or went: `before` and `after` are what was and is known of it. */
  moveMember(before: Workload | undefined, after: Workload | undefined): void {
    for (const { service } of before?.memberships ?? []) {
      const entry = this.#entries.get(service)
      if (!entry) continue
      if (!after?.memberships.some(each => each.service === service)) {
        entry.members.delete(before!.uid)
        this.#touch(entry)
        this.#dropEmpty(entry)
      }
    }
    for (const { service, ports } of after?.memberships ?? []) {
      const entry = this.#entry(service)
      const lot = entry.members.get(after!.uid)?.lot ?? Math.random()
      entry.members.set(after!.uid, { workload: after!, ports, lot })
      this.#touch(entry)
    }
  }

  #entry(key: string): ServiceEntry {
    let entry = this.#entries.get(key)
    if (!entry) {
      entry = { key, service: undefined, members: new Map(), answers: new Map() }
      this.#entries.set(key, entry)
    }
    return entry
  }

  #touch(entry: ServiceEntry): void {
    entry.answers.clear()
    this.#changes.service(entry.key)
  }

  #dropEmpty(entry: ServiceEntry): void {
    if (!entry.service && entry.members.size === 0) this.#entries.delete(entry.key)
  }

  #dropAddresses(entry: ServiceEntry, service: Service): void {
    for (const vip of service.vips) {
      const left = this.#byVip.get(vip)!.filter(each => each !== entry)
      if (left.length > 0) this.#byVip.set(vip, left)
      else this.#byVip.delete(vip)
      this.#changes.ip(vip)
    }
    for (const range of service.ranges) {
      this.#byRange.delete(range, entry)
      this.#changes.broad()
    }
  }
}

function prefer(entries: Iterable<ServiceEntry>, namespace: string): ServiceEntry | undefined {
  let best: ServiceEntry | undefined
  let bestRank = 0
  for (const entry of entries) {
    const rank = rankOf(entry.service!, namespace)
    if (rank > bestRank || (rank === bestRank && best && entry.key < best.key))
      [best, bestRank] = [entry, rank]
  }
  return best
}

/** 0: not visible. */
function rankOf(service: Service, namespace: string): number {
  if (service.info.namespace === namespace) return service.namespaceOnly ? 4 : 3
  if (service.namespaceOnly) return 0
  return service.canonical ? 2 : 1
}
