/**
 * Whom addresses belong to: the workloads and services that are held, and which those are. That is all of the
 * cluster's, or the node's own and what was asked for: whoever has an address, or a port of a node, that somebody
 * asked about, and with a service all of its endpoints. What nothing asks for any more goes at once.
 */
import type { Clock } from '../../lib/clock.ts'
import { addressName, hostPortName, nodePortName, parseAskedName } from '../../lib/discovery-names.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import type { Interner } from '../../lib/interner.ts'
import type { ChangeLog } from './changes.ts'
import { AddressDecoder, type AddressRecord } from './decode-workload.ts'
import { Demand } from './demand.ts'
import type { Locality, NodeRecord, Service, Workload } from './records.ts'
import { Services, type ServiceEntry } from './services.ts'
import { Workloads } from './workloads.ts'

export interface AddressesOptions {
  readonly nodeName: string
  readonly network: string
  readonly trustDomain: string
  /** The server is Culvert's. */
  readonly culvertTypes: boolean
  readonly discovery: 'full' | 'on-demand'
  readonly clock: Clock
  readonly enrolments: Interner<Enrolment>
  readonly changes: ChangeLog
  readonly addressesOfNode: (name: string) => readonly string[]
  /** Nobody can be asked any more. */
  readonly lost: () => void
}

export class Addresses {
  readonly workloads: Workloads
  readonly services: Services
  /** What was asked for; undefined where everything is told unasked. */
  readonly demand: Demand | undefined
  /** Workloads of our own node by the uid of their pod. */
  readonly ownPods = new Map<string, Workload>()
  /** Where this node stands, from what was told of its pods. */
  ownLocality: Locality = { region: '', zone: '', subzone: '' }
  readonly #options: AddressesOptions
  readonly #decoder: AddressDecoder

  constructor(options: AddressesOptions) {
    this.#options = options
    this.workloads = new Workloads(options.changes, options.network)
    this.services = new Services(options.changes)
    this.#decoder = new AddressDecoder(options)
    this.demand = options.discovery === 'on-demand' ? this.#makeDemand(options) : undefined
  }

  /**
   * The names to ask for to know all about an address, and about a port of it that is connected to. `node`: the one
   * whose address it is; all of those are known.
   */
  namesOf(ip: string, port: number | undefined, node: NodeRecord | undefined): readonly string[] {
    if (!this.demand) return NONE
    const names = node ? [] : [addressName(this.#options.network, ip)]
    const isOnNode = node !== undefined || this.workloads.hostNetworkAt(ip) !== undefined
    if (!isOnNode || port === undefined || !this.#options.culvertTypes) return names
    return [...names, nodePortName(port), ...(node ? [hostPortName(node.name, port)] : [])]
  }

  /** Asks for names. False when too much is asked for `asker`. */
  ask(names: readonly string[], asker: string): boolean {
    let isAsked = true
    for (const name of names) if (!this.demand!.ask(name, asker)) isAsked = false
    return isAsked
  }

  /** Reports whether those who can be asked may know more than what is held under the names. */
  isAwaited(names: readonly string[]): boolean {
    return names.some(name => this.#isAwaited(name))
  }

  /** Reports whether more is certain to come: it was asked for, of a server that is there. */
  isAnswering(names: readonly string[]): boolean {
    const { demand } = this
    return demand?.canAsk === true && names.some(name => demand.has(name) && this.#isAwaited(name))
  }

  /** While the promise is open the names stay asked for. */
  hold<T>(names: readonly string[], until: Promise<T>): Promise<T> {
    return names.length > 0 ? this.demand!.hold(names, until) : until
  }

  /** Takes an `istio.workload.Address`. Throws `INPUT`. */
  put(name: string, bytes: Uint8Array): 'unwanted' | undefined {
    const record = this.#decoder.decode(name, bytes)
    if (this.demand && !this.#takes(this.demand, record)) {
      this.remove(name)
      this.demand.refuse(name)
      return 'unwanted'
    }
    if (record.kind === 'service') {
      this.#removeWorkload(name)
      this.services.put(record.service)
      return undefined
    }
    this.services.remove(name)
    const before = this.workloads.put(record.workload)
    if (before === 'same') return undefined
    this.services.moveMember(before, record.workload)
    this.#noteOwn(before, record.workload)
    return undefined
  }

  remove(name: string): void {
    const members = this.demand ? [...(this.services.byKey(name)?.members.values() ?? [])] : []
    this.services.remove(name)
    this.#removeWorkload(name)
    for (const { workload } of members) this.#letGo(workload)
  }

  #removeWorkload(uid: string): void {
    const before = this.workloads.remove(uid)
    if (!before) return
    this.services.moveMember(before, undefined)
    this.#noteOwn(before, undefined)
  }

  /** Keeps what is said of the pods of our own node, and tells when what they are meant to be may have changed. */
  #noteOwn(before: Workload | undefined, after: Workload | undefined): void {
    const { nodeName, changes } = this.#options
    const was = before?.node === nodeName ? before : undefined
    const is = after?.node === nodeName ? after : undefined
    if (was?.details && this.ownPods.get(was.details.podUid) === was) this.ownPods.delete(was.details.podUid)
    if (is?.details) this.ownPods.set(is.details.podUid, is)
    if (is) this.ownLocality = is.locality
    const namespace = (is ?? was)?.namespace
    if (namespace !== undefined && !isMeantAlike(was, is)) changes.namespace(namespace)
  }

  #makeDemand({ network, culvertTypes, clock, changes, lost }: AddressesOptions): Demand {
    return new Demand({
      isName: name => parseAskedName(network, name) !== undefined,
      isAnsweredByName: culvertTypes,
      changed: name => this.#tellChange(name),
      dropped: name => this.#dropUnwanted(name),
      stale: () => changes.broad(),
      lost,
      clock,
    })
  }

  #tellChange(name: string): void {
    const { network, changes, addressesOfNode } = this.#options
    const asked = parseAskedName(network, name)
    if (asked?.kind === 'address') changes.ip(asked.ip)
    else if (asked?.kind === 'host-port') for (const ip of addressesOfNode(asked.node)) changes.ip(ip)
    else changes.broad() // a port of every node
  }

  #isAwaited(name: string): boolean {
    const { canAsk } = this.demand!
    const state = this.demand!.state(name)
    if (state === 'found') return false
    const { services, workloads } = this.#heldUnder(name)
    // Beside "there is none" it is on its way. While nobody can be asked, what is held is what there is.
    return services.length > 0 || workloads.length > 0 ? canAsk : state !== 'absent'
  }

  /** What is held that the name stands for, whatever it is held for. */
  #heldUnder(name: string): { services: readonly ServiceEntry[]; workloads: readonly Workload[] } {
    const asked = parseAskedName(this.#options.network, name)
    switch (asked?.kind) {
      case 'address':
        return { services: this.services.allAt(asked.ip), workloads: this.workloads.podsAt(asked.ip) }
      case 'node-port':
        return { services: this.services.allAtNodePort(asked.port), workloads: [] }
      case 'host-port':
        return { services: [], workloads: this.workloads.allAtHostPort(asked.node, asked.port) }
      default:
        return { services: [], workloads: [] }
    }
  }

  /** Reports whether something that was asked for stands for the resource, and notes that it has come. */
  #takes(demand: Demand, record: AddressRecord): boolean {
    const names =
      record.kind === 'service' ? this.#namesOfService(record.service) : this.#namesOfPod(record.workload)
    for (const name of names) demand.arrived(name)
    return record.kind === 'service' ? this.#isAsked(names) : this.#isWanted(record.workload)
  }

  #namesOfService({ vips, externalIps, nodePorts }: Service): string[] {
    const { network } = this.#options
    return [
      ...[...vips, ...externalIps].map(ip => addressName(network, ip)),
      ...[...nodePorts.keys()].map(nodePort => nodePortName(nodePort)),
    ]
  }

  /** A host-network workload is told of when somebody asks about its node's address. */
  #namesOfPod({ ips, node, details }: Workload): string[] {
    const hostPorts = details?.hostPorts ?? []
    return [
      ...ips.map(ip => addressName(this.#options.network, ip)),
      ...hostPorts.map(({ port }) => hostPortName(node, port)),
    ]
  }

  #isAsked(names: readonly string[]): boolean {
    return names.some(name => this.demand?.has(name))
  }

  /** The node's own, those that were asked for, and the endpoints of services that were. */
  #isWanted(workload: Workload): boolean {
    return (
      workload.node === this.#options.nodeName ||
      this.#isAsked(this.#namesOfPod(workload)) ||
      workload.memberships.some(({ service }) => this.services.byKey(service)?.service !== undefined)
    )
  }

  /** The name is not asked for any more: what was held for it alone goes. */
  #dropUnwanted(name: string): void {
    const { services, workloads } = this.#heldUnder(name)
    for (const { key, service } of services)
      if (service && !this.#isAsked(this.#namesOfService(service))) {
        this.demand?.letGo(key)
        this.remove(key)
      }
    const asked = parseAskedName(this.#options.network, name)
    const onHost = asked?.kind === 'address' ? this.workloads.allOfHostNetworkAt(asked.ip) : []
    for (const workload of [...workloads, ...onHost]) this.#letGo(workload)
  }

  #letGo(workload: Workload): void {
    if (this.#isWanted(workload)) return
    this.demand?.letGo(workload.uid)
    this.#removeWorkload(workload.uid)
  }
}

const NONE: readonly string[] = []

/** Reports whether two states of a workload of our own ask the same of its agent. */
function isMeantAlike(was: Workload | undefined, is: Workload | undefined): boolean {
  return (
    was?.serviceAccount === is?.serviceAccount &&
    was?.details?.podUid === is?.details?.podUid &&
    was?.details?.enrolment === is?.details?.enrolment &&
    was?.details?.terminating === is?.details?.terminating
  )
}
