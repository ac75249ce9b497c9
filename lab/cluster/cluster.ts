/**
 * What the API server and the controllers of a real cluster would hold and do, as far as Culvert sees it:
 * objects get uids, pods a node and addresses, services a virtual address and their endpoints. Pure state:
 * the supervisor builds pods and namespaces after it and writes it out for the ca-server and the agents.
 */
import { randomUUID } from 'node:crypto'
import type { LocalPod } from '../../agent/pods/source.ts'
import { CulvertError } from '../../lib/errors.ts'
import { keyOf } from '../../lib/kube/manifest.ts'
import type { KubeNode, KubeObject, KubePod, KubeService, ObjectMeta } from '../../lib/kube/objects.ts'
import { netnsName, netnsPath, podNetnsName } from '../names.ts'
import { AddressPool, nodeIps } from '../net/plan.ts'
import { podLinkName, type NodePlan, type PodPlan } from '../net/topology.ts'
import { endpointSlicesFor } from './endpoints.ts'
import { AGENT_NAMESPACE, AGENT_SERVICE_ACCOUNT, agentPodObject, nodeObject, type AgentPod } from './nodes.ts'
import { isForeign, LAB_NODE_ANNOTATION, placeOf, problemsOf, SYSTEM_NAMESPACES } from './lab-file.ts'

const ZONE_LABEL = 'topology.kubernetes.io/zone'

/** A pod with what the lab knows beyond the API. Host-network pods live in their node's namespace. */
export interface LabPod {
  readonly key: string
  readonly pod: KubePod
  readonly node: string
  readonly netns: string
  /** Its place in the network; undefined for host-network pods, which have none of their own. */
  readonly plan: PodPlan | undefined
  /** The namespace stands: the agent may be told. */
  readonly isBuilt: boolean
}

export interface PodChange {
  readonly phase?: KubePod['status']['phase']
  readonly ready?: boolean
  readonly isBuilt?: boolean
  /** Marks the pod as being deleted, now. */
  readonly graceSeconds?: number
}

export class Cluster {
  readonly lab: string
  readonly nodes: readonly NodePlan[]
  readonly #objects = new Map<string, Exclude<KubeObject, KubePod>>()
  readonly #pods = new Map<string, LabPod>()
  readonly #agents = new Map<string, AgentPod>()
  readonly #podAddresses: readonly AddressPool[]
  readonly #serviceAddresses = AddressPool.forServices()
  readonly #sliceUids = new Map<string, string>()
  readonly #changed: () => void
  #nextNode = 0

  /** `changed` is called after every change, synchronously. */
  constructor(lab: string, nodes: readonly string[], changed: () => void) {
    this.lab = lab
    this.#changed = changed
    this.nodes = nodes.map((name, at) => ({ name, index: at + 1, netns: netnsName(lab, name) }))
    this.#podAddresses = this.nodes.map(node => AddressPool.forPods(node.index))
    for (const name of SYSTEM_NAMESPACES) this.put({ kind: 'Namespace', metadata: { name, uid: '' } })
    for (const node of this.nodes) {
      this.put({
        kind: 'Node',
        metadata: { name: node.name, uid: '' },
        spec: { podCIDRs: [] },
        status: { addresses: [] },
      })
      this.#agents.set(node.name, {
        name: `culvert-agent-${node.name}`,
        uid: randomUUID(),
        nodeUid: this.#node(node.name).metadata.uid,
      })
    }
    this.#addServiceAccount(AGENT_NAMESPACE, AGENT_SERVICE_ACCOUNT)
  }

  /** Adds or replaces anything but a pod. Throws `LAB` when a Service's address cannot be had. */
  put(object: Exclude<KubeObject, KubePod>): void {
    const key = keyOf(object)
    const before = this.#objects.get(key)
    const metadata = withUid(object.metadata, before?.metadata.uid)
    if (object.kind === 'Node') {
      const plan = this.nodes.find(node => node.name === metadata.name)
      if (!plan) throw new CulvertError('LAB', `node '${metadata.name}' cannot be added while the lab is up`)
      this.#objects.set(key, nodeObject(plan, metadata))
    } else if (object.kind === 'Service') {
      const clusterIPs = this.#clusterIps(object, before?.kind === 'Service' ? before : undefined)
      this.#objects.set(key, { ...object, metadata, spec: { ...object.spec, clusterIPs } })
    } else {
      this.#objects.set(key, { ...object, metadata })
    }
    if (object.kind === 'Namespace') this.#addServiceAccount(metadata.name, 'default')
    this.#changed()
  }

  /** Takes away anything but a pod. Nodes and what every cluster has are kept. */
  drop(key: string): void {
    const object = this.#objects.get(key)
    if (!object || object.kind === 'Node') return
    if (object.kind === 'Namespace' && SYSTEM_NAMESPACES.includes(object.metadata.name)) return
    if (object.kind === 'Service') this.#serviceAddresses.free(object.spec.clusterIPs)
    this.#objects.delete(key)
    this.#changed()
  }

  /** Gives a new pod its uid, node and addresses. Throws `LAB` when it cannot be placed. */
  admit(wanted: KubePod): LabPod {
    const key = keyOf(wanted)
    if (this.#pods.has(key))
      throw new CulvertError('LAB', `pod ${key.slice('Pod '.length)} already exists`, {
        hint: 'remove it first: culvert lab del-pod',
      })
    const [problem] = problemsOf([wanted], new Set(this.nodes.map(node => node.name)), this.#namespaces())
    if (problem) throw new CulvertError('LAB', problem)
    const place = placeOf(wanted)
    const node = place
      ? this.nodes.find(node => node.name === place)!
      : this.nodes[this.#nextNode++ % this.nodes.length]!
    const { name, namespace = 'default' } = wanted.metadata
    const { [LAB_NODE_ANNOTATION]: _, ...annotations } = wanted.metadata.annotations ?? {}
    const metadata = withUid({ ...wanted.metadata, ...(wanted.metadata.annotations ? { annotations } : {}) })
    const isHost = wanted.spec.hostNetwork
    const ips = isHost ? nodeIps(node.index) : this.#podIps(wanted, node)
    const taken = new Set([...this.nodes, ...this.#pods.values()].map(({ netns }) => netns))
    const netns = isHost ? node.netns : podNetnsName(this.lab, namespace, name, other => taken.has(other))
    const labPod: LabPod = {
      key,
      pod: {
        kind: 'Pod',
        metadata,
        spec: { ...wanted.spec, nodeName: node.name },
        status: { phase: 'Pending', podIPs: ips, hostIP: nodeIps(node.index)[0], ready: false },
      },
      node: node.name,
      netns,
      plan: isHost ? undefined : { netns, link: podLinkName(metadata.uid), ips, nodeIndex: node.index },
      isBuilt: false,
    }
    this.#addServiceAccount(namespace, wanted.spec.serviceAccountName)
    this.#pods.set(key, labPod)
    this.#changed()
    return labPod
  }

  /** Notes what became of a pod; a pod that is no longer there is left alone. */
  change(key: string, { phase, ready, isBuilt, graceSeconds }: PodChange): void {
    const before = this.#pods.get(key)
    if (!before) return
    const { pod } = before
    const deletion =
      graceSeconds === undefined
        ? {}
        : { deletionTimestamp: new Date().toISOString(), deletionGracePeriodSeconds: graceSeconds }
    this.#pods.set(key, {
      ...before,
      isBuilt: isBuilt ?? before.isBuilt,
      pod: {
        ...pod,
        metadata: { ...pod.metadata, ...deletion },
        status: { ...pod.status, phase: phase ?? pod.status.phase, ready: ready ?? pod.status.ready },
      },
    })
    this.#changed()
  }

  /** Takes a pod away for good; its addresses may be given to another. */
  forget(key: string): void {
    const found = this.#pods.get(key)
    if (!found) return
    this.#pods.delete(key)
    if (found.plan) this.#poolOf(found.node).free(found.plan.ips)
    this.#changed()
  }

  /** Replaces labels and annotations of a pod, or annotations of anything; `Pod ns/name` or `Namespace name`. */
  relabel(key: string, change: Pick<ObjectMeta, 'labels' | 'annotations'>): void {
    const { [LAB_NODE_ANNOTATION]: _, ...annotations } = change.annotations ?? {}
    const wanted = { ...change, ...(change.annotations ? { annotations } : {}) }
    const found = this.#pods.get(key)
    const object = this.#objects.get(key)
    if (found) {
      const metadata = { ...found.pod.metadata, ...wanted }
      this.#pods.set(key, { ...found, pod: { ...found.pod, metadata } })
    } else if (object) {
      this.#objects.set(key, { ...object, metadata: { ...object.metadata, ...wanted } })
    } else throw new CulvertError('LAB', `there is no ${key}`)
    this.#changed()
  }

  get(key: string): KubeObject | undefined {
    return this.#pods.get(key)?.pod ?? this.#objects.get(key)
  }

  pod(key: string): LabPod | undefined {
    return this.#pods.get(key)
  }

  pods(): LabPod[] {
    return [...this.#pods.values()]
  }

  agent(node: string): AgentPod {
    return this.#agents.get(node)!
  }

  /** Reports whether the lab leaves the node's data plane to someone else. */
  isForeign(node: string): boolean {
    return isForeign(this.#node(node))
  }

  /** Everything, as the ca-server is to see it. */
  objects(): KubeObject[] {
    const own = [...this.#objects.values()]
    const pods = this.pods().map(({ pod }) => pod)
    const given = new Set(
      own.flatMap(object =>
        object.kind === 'EndpointSlice' ? `${object.metadata.namespace}/${object.serviceName}` : [],
      ),
    )
    const slices = own.flatMap(object => {
      if (object.kind !== 'Service') return []
      const key = `${object.metadata.namespace}/${object.metadata.name}`
      if (given.has(key)) return []
      const zoneOf = (node: string) => this.#node(node).metadata.labels?.[ZONE_LABEL]
      return endpointSlicesFor(object, pods, zoneOf, name => this.#sliceUid(`${key} ${name}`))
    })
    const agents = this.nodes
      .filter(node => !this.isForeign(node.name))
      .map(node => agentPodObject(node, this.agent(node.name)))
    return [...own, ...agents, ...pods, ...slices]
  }

  /** The pods of a node that its agent is to know: those with a namespace of their own that stands. */
  localPods(node: string): LocalPod[] {
    return this.pods()
      .filter(({ node: home, plan, isBuilt }) => home === node && plan !== undefined && isBuilt)
      .map(({ pod, netns }) => ({
        uid: pod.metadata.uid,
        namespace: pod.metadata.namespace ?? 'default',
        name: pod.metadata.name,
        serviceAccount: pod.spec.serviceAccountName,
        ips: pod.status.podIPs,
        annotations: pod.metadata.annotations ?? {},
        netns: netnsPath(netns),
        terminating: pod.metadata.deletionTimestamp !== undefined,
      }))
  }

  #node(name: string): KubeNode {
    return this.#objects.get(`Node ${name}`) as KubeNode
  }

  #namespaces(): Set<string> {
    const all = [...this.#objects.values()].filter(object => object.kind === 'Namespace')
    return new Set(all.map(namespace => namespace.metadata.name))
  }

  // An account has nothing but its name, so one that a pod names need not be written down.
  #addServiceAccount(namespace: string, name: string): void {
    if (this.#objects.has(`ServiceAccount ${namespace}/${name}`)) return
    this.put({ kind: 'ServiceAccount', metadata: { name, namespace, uid: '' } })
  }

  #poolOf(node: string): AddressPool {
    return this.#podAddresses[this.nodes.findIndex(({ name }) => name === node)]!
  }

  #podIps(pod: KubePod, node: NodePlan): readonly string[] {
    const pool = this.#poolOf(node.name)
    if (pod.status.podIPs.length === 0) return pool.take()
    pool.claim(pod.status.podIPs)
    return pod.status.podIPs
  }

  #clusterIps(service: KubeService, before: KubeService | undefined): readonly string[] {
    const { clusterIPs, type, ipFamilies = ['IPv4', 'IPv6'] } = service.spec
    if (clusterIPs.includes('None') || type === 'ExternalName') return clusterIPs
    const had = before?.spec.clusterIPs ?? []
    if (clusterIPs.length === 0 && had.length > 0) return had
    this.#serviceAddresses.free(had)
    if (clusterIPs.length > 0) {
      this.#serviceAddresses.claim(clusterIPs)
      return clusterIPs
    }
    const [v4, v6] = this.#serviceAddresses.take()
    return ipFamilies.map(family => (family === 'IPv6' ? v6 : v4))
  }

  #sliceUid(key: string): string {
    const uid = this.#sliceUids.get(key) ?? randomUUID()
    this.#sliceUids.set(key, uid)
    return uid
  }
}

function withUid<T extends ObjectMeta>(metadata: T, before?: string): T {
  return { ...metadata, uid: before ?? (metadata.uid || randomUUID()) }
}
