/**
 * Services by key and by VIP, each with the workloads that belong to it. A service may be heard of before its
 * endpoints, and endpoints before their service: either waits here for the other.
 */
import type { ChangeLog } from './changes.ts'
import { CidrMap } from './cidr-map.ts'
import type { EndpointAnswer } from './endpoints.ts'
import type { Membership, Service, Workload } from './records.ts'

export interface Member {
  readonly workload: Workload
  readonly part: Membership
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
  readonly #byExternalIp = new Map<string, ServiceEntry[]>()
  readonly #byNodePort = new Map<number, ServiceEntry[]>()
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

  /**
   * The service that has one of its ports at an external address, which may be that of several: the first by key. What
   * else is at the address is not for us to say.
   */
  byExternalIp(ip: string, port: number): ServiceEntry | undefined {
    const entries = this.#byExternalIp.get(ip)?.filter(({ service }) => service!.ports.has(port)) ?? []
    return firstByKey(entries)
  }

  /** The service that has a port on every node, and which of its own ports that is. */
  byNodePort(nodePort: number): { readonly entry: ServiceEntry; readonly port: number } | undefined {
    const entry = firstByKey(this.#byNodePort.get(nodePort) ?? [])
    return entry && { entry, port: entry.service!.nodePorts.get(nodePort)! }
  }

  /** What was made of endpoints may not hold any more: which addresses are the cluster's has changed. */
  forgetAnswers(): void {
    for (const { answers } of this.#entries.values()) answers.clear()
  }

  /** Every service that has the single address, for all or some of its ports, whoever may see it. */
  allAt(ip: string): readonly ServiceEntry[] {
    return [...(this.#byVip.get(ip) ?? []), ...(this.#byExternalIp.get(ip) ?? [])]
  }

  /** Every service that has the port on every node. */
  allAtNodePort(nodePort: number): readonly ServiceEntry[] {
    return this.#byNodePort.get(nodePort) ?? []
  }

  /** Adds or replaces a service. */
  put(service: Service): void {
    const entry = this.#entry(service.key)
    if (entry.service) this.#dropAddresses(entry, entry.service)
    else this.#serviceCount++
    if (!haveSameNodePorts(entry.service, service)) this.#changes.broad()
    entry.service = service
    for (const vip of service.vips) {
      add(this.#byVip, vip, entry)
      this.#changes.ip(vip)
    }
    for (const ip of service.externalIps) {
      add(this.#byExternalIp, ip, entry)
      this.#changes.ip(ip)
    }
    for (const nodePort of service.nodePorts.keys()) add(this.#byNodePort, nodePort, entry)
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
    if (!haveSameNodePorts(entry.service, undefined)) this.#changes.broad()
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
    for (const part of after?.memberships ?? []) {
      const entry = this.#entry(part.service)
      const lot = entry.members.get(after!.uid)?.lot ?? Math.random()
      entry.members.set(after!.uid, { workload: after!, part, lot })
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
      drop(this.#byVip, vip, entry)
      this.#changes.ip(vip)
    }
    for (const ip of service.externalIps) {
      drop(this.#byExternalIp, ip, entry)
      this.#changes.ip(ip)
    }
    for (const nodePort of service.nodePorts.keys()) drop(this.#byNodePort, nodePort, entry)
    for (const range of service.ranges) {
      this.#byRange.delete(range, entry)
      this.#changes.broad()
    }
  }
}

function add<K>(index: Map<K, ServiceEntry[]>, key: K, entry: ServiceEntry): void {
  const entries = index.get(key)
  if (entries) entries.push(entry)
  else index.set(key, [entry])
}

function drop<K>(index: Map<K, ServiceEntry[]>, key: K, entry: ServiceEntry): void {
  const left = index.get(key)!.filter(each => each !== entry)
  if (left.length > 0) index.set(key, left)
  else index.delete(key)
}

function firstByKey(entries: readonly ServiceEntry[]): ServiceEntry | undefined {
  let first: ServiceEntry | undefined
  for (const entry of entries) if (!first || entry.key < first.key) first = entry
  return first
}

function haveSameNodePorts(a: Service | undefined, b: Service | undefined): boolean {
  const text = (service: Service | undefined) => [...(service?.nodePorts ?? [])].join(' ')
  return text(a) === text(b)
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
