/**
 * Keeps the published resources true to the world: hears of changes, works out which resources they touch, and
 * encodes those anew, all changes of some milliseconds together. What an object that cannot be told makes
 * impossible is logged, and its last good resource stays.
 */
import { create, toBinary } from '@bufbuild/protobuf'
import { errorText } from '../../lib/errors.ts'
import type { KubeEndpointSlice, KubeObject, KubePod } from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'
import { NamespaceSchema, NodeSchema, TrustBundleSchema } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { Observed } from '../reports/observed.ts'
import { wishes } from '../world/enrolment.ts'
import { MultiMap } from '../world/multi-map.ts'
import { objectKey, type World, type WorldChange } from '../world/world.ts'
import { differingEndpoints, serviceName, type SliceEndpoint } from './endpoints.ts'
import { namespaceMessage, nodeIps, nodeMessage } from './mesh-messages.ts'
import { ResourceSet, type ResourceContent } from './resource-set.ts'
import { serviceResource } from './services.ts'
import { externalWorkloads, podResourceName, podWorkload, type MeshSettings } from './workloads.ts'

export const TYPE_URL = {
  address: 'type.googleapis.com/istio.workload.Address',
  authorization: 'type.googleapis.com/istio.security.Authorization',
  namespace: 'type.googleapis.com/culvert.v1.Namespace',
  node: 'type.googleapis.com/culvert.v1.Node',
  trustBundle: 'type.googleapis.com/culvert.v1.TrustBundle',
} as const

export interface PublisherOptions {
  readonly world: World
  readonly observed: Observed
  readonly settings: MeshSettings
  /** PEM, one certificate each; asked for whenever `rootsChanged` is called. */
  readonly roots: () => readonly string[]
  readonly log: Logger
}

/**
 * Changes within this time of the last publication wait for its end; the first one after a quiet time does not. Each
 * publication is sent to every agent: how often that can be done depends on their number, so the time grows while the
 * process has little rest, and shrinks again.
 */
const COALESCE_MS = { least: 10, most: 500 }
/** Parts of the time that the process was busy since the last publication, above and below which the time changes. */
const BUSY = 0.6
const RESTED = 0.3
/** How long calls may have to wait while much is published. */
const BUDGET_MS = 20

export class Publisher {
  readonly #options: PublisherOptions
  readonly #addresses = new ResourceSet(TYPE_URL.address)
  readonly #authorizations = new ResourceSet(TYPE_URL.authorization)
  readonly #namespaces = new ResourceSet(TYPE_URL.namespace)
  readonly #nodes = new ResourceSet(TYPE_URL.node)
  readonly #trustBundles = new ResourceSet(TYPE_URL.trustBundle)
  readonly #listeners = new Set<() => void>()
  readonly #ipsOfNode = new Map<string, readonly string[]>()
  readonly #nodesWithIp = new MultiMap<string, string>()
  /** By slice: names of the resources made for its endpoints that are no pods. */
  readonly #external = new Map<string, readonly string[]>()
  readonly #problems = new Map<string, string>()
  readonly #dirty = {
    pods: new Set<string>(),
    services: new Set<string>(),
    slices: new Set<string>(),
    namespaces: new Set<string>(),
    nodes: new Set<string>(),
  }
  #timer: NodeJS.Timeout | NodeJS.Immediate | undefined
  #publishedAtMs = -Infinity
  #coalesceMs = COALESCE_MS.least
  #load = performance.eventLoopUtilization()
  #isReady = false

  constructor(options: PublisherOptions) {
    this.#options = options
    options.world.onChange(changes => this.#worldChanged(changes))
    options.observed.onChange(podKeys => {
      for (const key of podKeys) this.#dirty.pods.add(key)
      this.#schedule()
    })
    this.rootsChanged()
  }

  /** The types served, in the order in which a client should hear of them: who to trust before whom to reach. */
  get sets(): readonly ResourceSet[] {
    return [this.#trustBundles, this.#nodes, this.#namespaces, this.#authorizations, this.#addresses]
  }

  /** Reports whether the whole world has been published once. Before, an absent resource means nothing. */
  get isReady(): boolean {
    return this.#isReady
  }

  /** Calls the listener after each publication. Gives a function that ends that. */
  onPublish(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Publishes the roots of trust anew. */
  rootsChanged(): void {
    const { trustDomain } = this.#options.settings
    const bundle = create(TrustBundleSchema, { trustDomain, roots: [...this.#options.roots()] })
    const bytes = toBinary(TrustBundleSchema, bundle)
    if (this.#trustBundles.put(trustDomain, { bytes })) this.#tell()
  }

  /** Publishes all that is pending without waiting. */
  flush(): void {
    this.#publishPending(Infinity)
  }

  /** Publishes what is pending for as long as the budget lasts; the rest follows when others have had their turn. */
  #publishPending(budgetMs: number): void {
    this.#cancel()
    if (!this.#options.world.isSynced) return
    const startMs = performance.now()
    const isOver = (): boolean => performance.now() - startMs > budgetMs
    const before = this.sets.map(({ revision }) => revision)
    const { nodes, namespaces, services, slices, pods } = this.#dirty
    const isDone =
      drain(nodes, name => this.#publishNode(name), isOver) &&
      drain(namespaces, name => this.#publishNamespace(name), isOver) &&
      drain(services, key => this.#publishService(key), isOver) &&
      drain(slices, key => this.#publishSlice(key), isOver) &&
      drain(pods, key => this.#publishPod(key), isOver)
    this.#publishedAtMs = isDone ? startMs : -Infinity
    if (isDone) this.#adapt()
    const isFirst = isDone && !this.#isReady
    if (isFirst) this.#isReady = true
    if (isFirst || this.sets.some(({ revision }, at) => revision !== before[at])) this.#tell()
    if (!isDone) this.#schedule()
  }

  close(): void {
    this.#cancel()
    this.#listeners.clear()
  }

  #cancel(): void {
    clearTimeout(this.#timer as NodeJS.Timeout)
    clearImmediate(this.#timer as NodeJS.Immediate)
    this.#timer = undefined
  }

  #schedule(): void {
    if (this.#timer) return
    const waitMs = this.#publishedAtMs + this.#coalesceMs - performance.now()
    const flush = (): void => this.#publishPending(BUDGET_MS)
    this.#timer = waitMs > 0 ? setTimeout(flush, waitMs) : setImmediate(flush)
  }

  /** Chooses how long the next changes are gathered, by how busy this and the last publication have kept the process. */
  #adapt(): void {
    const { utilization } = performance.eventLoopUtilization(this.#load)
    this.#load = performance.eventLoopUtilization()
    if (utilization > BUSY) this.#coalesceMs = Math.min(COALESCE_MS.most, this.#coalesceMs * 2)
    else if (utilization < RESTED) this.#coalesceMs = Math.max(COALESCE_MS.least, this.#coalesceMs / 2)
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }

  #worldChanged(changes: readonly WorldChange[]): void {
    for (const change of changes) this.#mark(change)
    this.#schedule()
  }

  /** Marks the resources that a change of an object can touch. */
  #mark({ kind, key, before, after }: WorldChange): void {
    const { world } = this.#options
    if (kind === 'Pod') {
      this.#dirty.pods.add(key)
      for (const pod of [before, after]) if (pod) this.#markAddressed(pod as KubePod)
    }
    if (kind === 'Namespace') {
      this.#dirty.namespaces.add(key)
      for (const pod of world.podsInNamespace(key)) this.#dirty.pods.add(objectKey(pod.metadata))
    }
    if (kind === 'Node') {
      this.#dirty.nodes.add(key)
      for (const pod of world.podsOnNode(key)) this.#dirty.pods.add(objectKey(pod.metadata))
    }
    if (kind === 'Service') {
      this.#dirty.services.add(key)
      for (const slice of world.slicesOfService(key)) this.#markSlice(slice)
    }
    if (kind === 'EndpointSlice') {
      this.#dirty.slices.add(key)
      const [one, other] = [before, after] as (KubeEndpointSlice | undefined)[]
      this.#markEndpoints(key.slice(0, key.indexOf('/')), differingEndpoints(one, other))
    }
  }

  #markSlice(slice: KubeEndpointSlice): void {
    this.#dirty.slices.add(objectKey(slice.metadata))
    this.#markEndpoints(slice.metadata.namespace ?? '', slice.endpoints)
  }

  /** Marks the pods that endpoints of slices in the namespace are. */
  #markEndpoints(namespace: string, endpoints: readonly SliceEndpoint[]): void {
    for (const { targetRef, addresses } of endpoints)
      if (targetRef?.kind === 'Pod')
        this.#dirty.pods.add(`${targetRef.namespace ?? namespace}/${targetRef.name}`)
      else
        for (const ip of addresses)
          for (const pod of this.#options.world.podsByIp(ip)) this.#dirty.pods.add(objectKey(pod.metadata))
  }

  /** Endpoints that are addresses only are the pod while it has the address. */
  #markAddressed({ status }: KubePod): void {
    for (const ip of status.podIPs)
      for (const slice of this.#options.world.slicesAt(ip)) this.#dirty.slices.add(objectKey(slice.metadata))
  }

  #publishPod(key: string): void {
    const { world, observed, settings } = this.#options
    const pod = world.pod(key)
    this.#tellProblems('Pod', key, pod)
    this.#publish(this.#addresses, podResourceName(key, settings), () =>
      pod ? podWorkload(world, pod, observed.of(pod), settings) : undefined,
    )
  }

  #publishService(key: string): void {
    const { world, settings } = this.#options
    const [namespace, name] = key.split('/') as [string, string]
    const service = world.service(key)
    this.#publish(this.#addresses, serviceName({ namespace, name }, settings.clusterDomain), () =>
      service ? serviceResource(service, settings.clusterDomain) : undefined,
    )
  }

  #publishSlice(key: string): void {
    const { world, settings } = this.#options
    const slice = world.slice(key)
    let wanted = new Map<string, ResourceContent>()
    try {
      if (slice) wanted = externalWorkloads(world, slice, ip => this.#nodesWithIp.has(ip), settings)
    } catch (err) {
      this.#unpublishable(key, err)
      return
    }
    for (const name of this.#external.get(key) ?? []) if (!wanted.has(name)) this.#addresses.remove(name)
    for (const [name, content] of wanted) this.#addresses.put(name, content)
    if (wanted.size > 0) this.#external.set(key, [...wanted.keys()])
    else this.#external.delete(key)
  }

  #publishNamespace(name: string): void {
    const { world } = this.#options
    const namespace = world.namespace(name)
    this.#tellProblems('Namespace', name, namespace)
    this.#publish(this.#namespaces, name, () =>
      namespace ? { bytes: toBinary(NamespaceSchema, namespaceMessage(world, namespace)) } : undefined,
    )
  }

  #publishNode(name: string): void {
    const node = this.#options.world.node(name)
    this.#publish(this.#nodes, name, () => {
      const ips = node ? nodeIps(node) : []
      for (const ip of this.#ipsOfNode.get(name) ?? []) this.#nodesWithIp.delete(ip, name)
      for (const ip of ips) this.#nodesWithIp.add(ip, name)
      if (node) this.#ipsOfNode.set(name, ips)
      else this.#ipsOfNode.delete(name)
      return node ? { bytes: toBinary(NodeSchema, nodeMessage(node)) } : undefined
    })
    // Endpoints that are no pods may stand on a node: those are few.
    for (const key of this.#external.keys()) this.#dirty.slices.add(key)
  }

  #publish(set: ResourceSet, name: string, make: () => ResourceContent | undefined): void {
    try {
      const content = make()
      if (content) set.put(name, content)
      else set.remove(name)
    } catch (err) {
      this.#unpublishable(name, err)
    }
  }

  #unpublishable(name: string, err: unknown): void {
    this.#options.log.error({ resource: name, err: errorText(err) }, 'object cannot be told to agents')
  }

  /** Logs the annotations of an object that are not understood, once for each set of them. */
  #tellProblems(kind: string, key: string, object: KubeObject | undefined): void {
    const problems = object ? wishes(object.metadata).problems : []
    const text = problems.join('; ')
    const place = `${kind} ${key}`
    if ((this.#problems.get(place) ?? '') === text) return
    if (text === '') this.#problems.delete(place)
    else this.#problems.set(place, text)
    if (text !== '') this.#options.log.warn({ object: place, problems }, 'annotations not understood')
  }
}

/** Publishes keys until none is left or the time is over; reports whether none is left. */
function drain(dirty: Set<string>, publish: (key: string) => void, isOver: () => boolean): boolean {
  for (const key of dirty) {
    if (isOver()) return false
    dirty.delete(key)
    publish(key)
  }
  return true
}
