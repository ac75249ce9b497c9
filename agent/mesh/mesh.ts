/**
 * Everything the agent knows of the mesh, and who is told when it changes. The discovery stream fills it;
 * decisions (router.ts), the enroller and the certificate manager read it. When the server is away it stays
 * as it was: old knowledge is better than none.
 */
import { Cidr } from '../../lib/address.ts'
import { systemClock, type Clock } from '../../lib/clock.ts'
import { mergeEnrolment, parseEnrolment, type Enrolment, type EnrolmentWishes } from '../../lib/enrolment.ts'
import { otherMeshOf } from '../../lib/kube/other-mesh.ts'
import type { LocalPod } from '../pods/source.ts'
import { Addresses } from './addresses.ts'
import { ChangeLog, type ChangeListener } from './changes.ts'
import { decodeNamespace, decodeNode, decodeTrustBundle } from './decode-culvert.ts'
import { decodePolicy } from './decode-policy.ts'
import type { Origin } from './endpoints.ts'
import { Interner } from '../../lib/interner.ts'
import { Nodes } from './nodes.ts'
import { Policies } from './policies.ts'
import type { NamespaceRecord, TrustBundleRecord, Workload } from './records.ts'
import type { ResourceKind } from './resource-kind.ts'
import type { Services } from './services.ts'
import { Waiters } from './waiters.ts'
import type { Workloads } from './workloads.ts'

const POLICY_TYPE = 'type.googleapis.com/istio.security.Authorization'
const NO_WISHES: EnrolmentWishes = { problems: [] }

export interface MeshOptions {
  /** The node this agent runs on. */
  nodeName: string
  /** As in the uids of workloads. @default 'Kubernetes' */
  clusterId?: string
  /** For workloads that do not name theirs. @default 'cluster.local' */
  trustDomain?: string
  /** Our network, as workloads name it. @default '' */
  network?: string
  /**
   * The server knows Culvert's own types: namespaces, nodes, trust bundles. Without them every namespace wishes
   * what `defaultWishes` says. @default true
   */
  culvertTypes?: boolean
  /** @default nothing, which means not enrolled */
  defaultWishes?: EnrolmentWishes
  /** How long the first sync waits for Culvert's own types after everything else has come. @default 3000 */
  culvertWaitMs?: number
  /** Ranges of pods and services beyond what the nodes say. */
  clusterCidrs?: readonly string[]
  /**
   * `full`: all workloads and services are held. `on-demand`: those of the node, and what its pods talk to; the rest
   * is asked for when a connection needs it (`ask`). @default 'full'
   */
  discovery?: 'full' | 'on-demand'
  /** By which what was asked for grows old. @default systemClock */
  clock?: Clock
}

export class Mesh {
  readonly #options: Required<MeshOptions>
  readonly #changes = new ChangeLog()
  readonly #enrolments = new Interner<Enrolment>()
  readonly #namespaces = new Map<string, NamespaceRecord>()
  readonly #trustBundles = new Map<string, TrustBundleRecord>()
  readonly #waiters = new Waiters()
  readonly #unsettled: Set<ResourceKind>
  #culvertTimer: NodeJS.Timeout | undefined
  #isSynced = false

  readonly addresses: Addresses
  readonly policies: Policies
  readonly nodes: Nodes
  /** What a discovery client subscribes to on this mesh's behalf. */
  readonly kinds: readonly ResourceKind[]

  constructor(options: MeshOptions) {
    this.#options = {
      clusterId: 'Kubernetes',
      trustDomain: 'cluster.local',
      network: '',
      culvertTypes: true,
      defaultWishes: { problems: [] },
      culvertWaitMs: 3000,
      clusterCidrs: [],
      discovery: 'full',
      clock: systemClock,
      ...options,
    }
    const { clusterCidrs, culvertTypes } = this.#options
    this.addresses = new Addresses({
      ...this.#options,
      enrolments: this.#enrolments,
      changes: this.#changes,
      addressesOfNode: name => this.nodes.addressesOf(name),
      lost: () => this.#waiters.wakeAll(),
    })
    this.policies = new Policies(this.#changes)
    this.nodes = new Nodes(
      this.#changes,
      clusterCidrs.map(cidr => Cidr.parse(cidr)),
    )
    this.kinds = this.#makeKinds(culvertTypes)
    this.#unsettled = new Set(this.kinds)
    this.#changes.onChange(({ ips, broad }) => (broad ? this.#waiters.wakeAll() : this.#waiters.wake(ips)))
  }

  get workloads(): Workloads {
    return this.addresses.workloads
  }

  get services(): Services {
    return this.addresses.services
  }

  /** Reports whether the first full picture has been received; it stays so when the server goes away. */
  get isSynced(): boolean {
    return this.#isSynced
  }

  /** Reports whether the policies have been received: before, nobody can be let in by them. */
  get hasPolicies(): boolean {
    return this.#isSynced || ![...this.#unsettled].some(kind => kind.typeUrl === POLICY_TYPE)
  }

  /** What the first sync still waits for, by type URL. Empty once synced. */
  get waitsFor(): readonly string[] {
    return this.#isSynced ? [] : [...this.#unsettled].map(kind => kind.typeUrl)
  }

  /** Tells what each batch of updates touched, after it was applied. */
  onChange(listener: ChangeListener): void {
    this.#changes.onChange(listener)
  }

  /**
   * Reports whether all is known about the address, and a port of it, that the server knows: what is not known is not
   * there.
   */
  knows(ip: string, port?: number): boolean {
    return this.#isSynced && !this.isAwaited(ip, port)
  }

  /** Reports whether what is known of them may be a part, because it is held only when it is asked for. */
  isAwaited(ip: string, port?: number): boolean {
    return this.addresses.isAwaited(this.#namesOf(ip, port))
  }

  /** Reports whether an answer about them is certain to come: the server has been asked, and is there. */
  isAnswering(ip: string, port?: number): boolean {
    return this.addresses.isAnswering(this.#namesOf(ip, port))
  }

  /** Reports whether there is a server to ask; where nothing is asked for there is none. */
  get canAsk(): boolean {
    return this.addresses.demand?.canAsk ?? false
  }

  /**
   * Asks about an address that a pod of this node talks to, and the port if it is the one who calls. False when too
   * much is asked for `asker`: then nobody will be told when an answer no longer holds.
   */
  ask(asker: string, ip: string, port?: number): boolean {
    return this.addresses.ask(this.#namesOf(ip, port), asker)
  }

  /**
   * Resolves at the next change that may concern the address, or after the time. Never rejects. False when too many
   * questions wait already, the pod's or all.
   */
  changed(podUid: string, timeoutMs: number, ip: string, port?: number): Promise<boolean> {
    return this.addresses.hold(this.#namesOf(ip, port), this.#waiters.wait(ip, timeoutMs, podUid))
  }

  /** Resolves once the first full picture is there; rejects when the signal aborts before. */
  whenSynced(signal: AbortSignal): Promise<void> {
    return this.#waiters.whenSynced(signal)
  }

  /**
   * What holds for a pod of this node. The server's word on this very pod first, since it sees annotations
   * change; else its namespace's and its own. Undefined while neither it nor its namespace is known, and the pod
   * does not say itself whether it is in the mesh. The same content is the same object, from call to call.
   */
  enrolmentOf(pod: LocalPod): Enrolment | undefined {
    const known = this.workloadOf(pod)?.details?.enrolment
    if (known) return known
    const wishes = this.#options.culvertTypes
      ? this.#namespaces.get(pod.namespace)?.wishes
      : this.#options.defaultWishes
    const own = parseEnrolment(pod.annotations)
    if (!wishes && own.mesh === undefined) return undefined
    const merged = mergeEnrolment(wishes ?? NO_WISHES, own)
    const enrolment = otherMeshOf(pod) === undefined ? merged : { ...merged, mesh: false }
    return this.#enrolments.get(JSON.stringify(enrolment), () => enrolment)
  }

  /** The service account that a pod of this node runs as: its source's word, else the server's. It never changes. */
  serviceAccountOf(pod: LocalPod): string | undefined {
    return pod.serviceAccount ?? (this.workloadOf(pod)?.serviceAccount || undefined)
  }

  /** Reports whether a pod of this node is being deleted, as far as anybody has said so. */
  isTerminating(pod: LocalPod): boolean {
    return pod.terminating || this.workloadOf(pod)?.details?.terminating === true
  }

  /** The workload of the pod of this node that has the uid. Only Culvert's own server tells uids. */
  ownPod(podUid: string): Workload | undefined {
    return this.addresses.ownPods.get(podUid)
  }

  /** All of them. */
  ownPods(): MapIterator<Workload> {
    return this.addresses.ownPods.values()
  }

  /** Tells the namespaces in which the above may answer otherwise than before. */
  onEnrolmentChange(listener: (namespaces: ReadonlySet<string>) => void): void {
    this.#changes.onChange(({ namespaces }) => {
      if (namespaces.size > 0) listener(namespaces)
    })
  }

  /** The roots of a trust domain, PEM; undefined when the server has not told any. */
  roots(trustDomain: string): readonly string[] | undefined {
    return this.#trustBundles.get(trustDomain)?.roots
  }

  onRootsChange(listener: (trustDomains: ReadonlySet<string>) => void): void {
    this.#changes.onChange(({ trustDomains }) => {
      if (trustDomains.size > 0) listener(trustDomains)
    })
  }

  /** Reports whether an address lies in a range that pods or services get theirs from. */
  readonly isInCluster = (ip: string): boolean => this.nodes.isInCluster(ip)

  nodeAddresses(nodeName: string): readonly string[] {
    return this.nodes.addressesOf(nodeName)
  }

  /** The workload that discovery knows the local pod as. One of an earlier pod with its name is not it. */
  workloadOf(pod: LocalPod): Workload | undefined {
    const isIt = (workload: Workload | undefined) =>
      workload !== undefined &&
      workload.name === pod.name &&
      workload.namespace === pod.namespace &&
      (workload.details === undefined || workload.details.podUid === pod.uid)
    const named = this.workloads.byUid(`${this.#options.clusterId}//Pod/${pod.namespace}/${pod.name}`)
    if (isIt(named)) return named
    return pod.ips.map(ip => this.workloads.byIp(ip)).find(isIt)
  }

  /** Where the pod's connections come from; of a pod not known yet, this node. */
  originOf(pod: LocalPod): Origin {
    const { nodeName, clusterId, network } = this.#options
    const workload = this.workloadOf(pod)
    return {
      node: workload?.node || nodeName,
      cluster: workload?.cluster || clusterId,
      network,
      locality: workload?.locality ?? this.addresses.ownLocality,
    }
  }

  /** The number of each thing known. */
  sizes(): Record<string, number> {
    return {
      workloads: this.workloads.size,
      addresses: this.workloads.addressCount,
      services: this.services.size,
      policies: this.policies.size,
      namespaces: this.#namespaces.size,
      nodes: this.nodes.size,
      trustBundles: this.#trustBundles.size,
      ...this.addresses.demand?.sizes(),
    }
  }

  /** Everything known, as plain JSON. */
  dump(): Record<string, unknown> {
    return {
      synced: this.#isSynced,
      waitsFor: this.waitsFor,
      sizes: this.sizes(),
      workloads: [...this.workloads.values()].map(({ memberships, waypoint, ...rest }) => ({
        ...rest,
        waypoint: waypoint?.text,
        services: Object.fromEntries(
          memberships.map(({ service, ports }) => [service, Object.fromEntries(ports)]),
        ),
      })),
      services: [...this.services.values()].map(({ key, service, members }) => ({
        key,
        ...(service && {
          ...service,
          ports: Object.fromEntries(service.ports),
          ranges: service.ranges.map(range => range.text),
          waypoint: service.waypoint?.text,
        }),
        endpoints: [...members.keys()],
      })),
      policies: [...this.policies.values()],
      namespaces: [...this.#namespaces.values()],
      nodes: [...this.nodes.values()].map(node => ({
        ...node,
        podCidrs: node.podCidrs.map(range => range.text),
      })),
      trustBundles: [...this.#trustBundles.values()],
      ...(this.addresses.demand && { demand: this.addresses.demand.dump() }),
    }
  }

  #namesOf(ip: string, port: number | undefined): readonly string[] {
    return this.addresses.namesOf(ip, port, this.nodes.at(ip))
  }

  #makeKinds(culvertTypes: boolean): ResourceKind[] {
    const kind = (
      type: string,
      put: ResourceKind['put'],
      remove: ResourceKind['remove'],
      wants?: ResourceKind['wants'],
    ): ResourceKind => {
      const made: ResourceKind = {
        typeUrl: `type.googleapis.com/${type}`,
        put,
        remove,
        settled: () => this.#settle(made),
        ...(wants && { wants }),
      }
      return made
    }
    const standard = [
      kind(
        'istio.workload.Address',
        (name, bytes) => this.addresses.put(name, bytes),
        name => this.addresses.remove(name),
        this.addresses.demand,
      ),
      // Always as a whole: no name says which policies concern a pod, and to miss one is to let in whom it refuses.
      kind(
        'istio.security.Authorization',
        (name, bytes) => this.policies.put(decodePolicy(name, bytes)),
        name => this.policies.remove(name),
      ),
    ]
    if (!culvertTypes) return standard
    return [
      ...standard,
      kind(
        'culvert.v1.Namespace',
        (name, bytes) => {
          this.#namespaces.set(name, decodeNamespace(name, bytes))
          this.#changes.namespace(name)
        },
        name => {
          if (this.#namespaces.delete(name)) this.#changes.namespace(name)
        },
      ),
      kind(
        'culvert.v1.Node',
        (name, bytes) => {
          this.nodes.put(decodeNode(name, bytes))
          this.services.forgetAnswers()
        },
        name => {
          this.nodes.remove(name)
          this.services.forgetAnswers()
        },
      ),
      kind(
        'culvert.v1.TrustBundle',
        (name, bytes) => {
          this.#trustBundles.set(name, decodeTrustBundle(name, bytes))
          this.#changes.trustDomain(name)
        },
        name => {
          if (this.#trustBundles.delete(name)) this.#changes.trustDomain(name)
        },
      ),
    ]
  }

  #settle(kind: ResourceKind): void {
    if (this.#isSynced || !this.#unsettled.delete(kind)) return
    this.#changes.broad()
    const isOnlyCulvertLeft = [...this.#unsettled].every(each => each.typeUrl.includes('/culvert.'))
    if (this.#unsettled.size === 0) this.#sync()
    else if (isOnlyCulvertLeft)
      this.#culvertTimer ??= setTimeout(() => this.#sync(), this.#options.culvertWaitMs).unref()
  }

  #sync(): void {
    clearTimeout(this.#culvertTimer)
    this.#isSynced = true
    this.#changes.broad()
    this.#waiters.synced()
  }
}
