/**
 * A cluster of any size that lives as its controllers would have it live: pods are replaced, their slices follow. What is
 * kept of a pod is a few numbers; its JSON is written when somebody asks for it.
 *
 * A replacement takes 200 ms: the new pod is there at once, without an address, while the old one is terminating and no
 * longer ready in its slice; 100 ms later the old one is gone and the new one has an address; another 100 ms later it is
 * ready, and its slice says so.
 */
import type { KubeObject } from '../../lib/kube/objects.ts'
import { writeObject } from '../../lib/kube/write.ts'
import { namespacesOf, nodesOf, podIp, podOf, PODS_PER_SERVICE, servicesOf } from '../micro/cluster.ts'
import { podText } from './pod-text.ts'

export type ResourceName = 'nodes' | 'namespaces' | 'services' | 'endpointslices' | 'pods'
export type EventType = 'ADDED' | 'MODIFIED' | 'DELETED'

/** Told of each change, with the object's JSON. */
export type EventListener = (resource: ResourceName, type: EventType, version: number, text: string) => void

type State = 'pending' | 'running' | 'ready' | 'terminating'

interface SimulatedPod {
  readonly name: string
  readonly uid: string
  readonly ip: string
  state: State
  version: number
}

const STEP_MS = 100
/** What begins the last part of a replacement's name: by it one knows that the pod was not there at the start. */
export const REPLACED = '-new-'

export class SimulatedCluster {
  readonly pods: number
  readonly #listener: EventListener
  /** Slots whose pod is no longer the first, with all pods that the slot has now. */
  readonly #changed = new Map<number, SimulatedPod[]>()
  readonly #sliceVersions: Uint32Array
  readonly #services: readonly KubeObject[]
  #version = 1000
  #replaced = 0

  constructor(pods: number, listener: EventListener) {
    this.pods = pods
    this.#listener = listener
    this.#services = servicesOf(pods)
    this.#sliceVersions = new Uint32Array(this.#services.length).fill(1)
  }

  get version(): number {
    return this.#version
  }

  /** The JSON of some objects of a resource, and where to go on; undefined at the end. */
  list(resource: ResourceName, from: number, limit: number): { texts: string[]; next: number | undefined } {
    const total = this.#slots(resource)
    const end = Math.min(total, from + limit)
    const texts: string[] = []
    for (let at = from; at < end; at++) texts.push(...this.#texts(resource, at))
    return { texts, next: end < total ? end : undefined }
  }

  /** Begins to replace a pod. Resolves when the new one is ready and has been told of, with its key. */
  async replace(slot: number): Promise<string> {
    const now = this.#podsAt(slot)
    const [old] = now
    const number = this.#replaced++
    const app = `app-${Math.floor(slot / PODS_PER_SERVICE)}`
    const { metadata } = podOf(slot)
    const fresh: SimulatedPod = {
      name: `${app}${REPLACED}${number.toString(36)}`,
      uid: `00000000-0000-4000-9000-${number.toString(16).padStart(12, '0')}`,
      ip: podIp(this.pods + number),
      state: 'pending',
      version: 0,
    }
    old!.state = 'terminating'
    this.#changed.set(slot, [old!, fresh])
    this.#tellPod(slot, old!, 'MODIFIED')
    this.#tellPod(slot, fresh, 'ADDED')
    this.#tellSlice(slot)
    await pause()
    this.#changed.set(slot, [fresh])
    this.#tellPod(slot, old!, 'DELETED')
    fresh.state = 'running'
    this.#tellPod(slot, fresh, 'MODIFIED')
    await pause()
    fresh.state = 'ready'
    this.#tellPod(slot, fresh, 'MODIFIED')
    this.#tellSlice(slot)
    return `${metadata.namespace}/${fresh.name}`
  }

  #slots(resource: ResourceName): number {
    if (resource === 'pods') return this.pods
    if (resource === 'services' || resource === 'endpointslices') return this.#services.length
    return this.#fixed(resource).length
  }

  #texts(resource: ResourceName, at: number): string[] {
    if (resource === 'pods') return this.#podsAt(at).map(pod => this.#podText(at, pod))
    if (resource === 'endpointslices') return [this.#sliceText(at)]
    if (resource === 'services') return [JSON.stringify(withVersion(writeObject(this.#services[at]!), 1))]
    return [JSON.stringify(withVersion(writeObject(this.#fixed(resource)[at]!), 1))]
  }

  /** No agent reports from the nodes: their pods count as tunnelled to because they are said to be somebody else's. */
  #fixed(resource: 'nodes' | 'namespaces'): readonly KubeObject[] {
    if (resource === 'namespaces') return namespacesOf(this.pods)
    const annotations = { 'culvert.dev/agent': 'foreign' }
    return nodesOf(this.pods).map(node => ({ ...node, metadata: { ...node.metadata, annotations } }))
  }

  #podsAt(slot: number): SimulatedPod[] {
    const changed = this.#changed.get(slot)
    if (changed) return changed
    const { metadata } = podOf(slot)
    return [{ name: metadata.name, uid: metadata.uid, ip: podIp(slot), state: 'ready', version: 1 }]
  }

  #tellPod(slot: number, pod: SimulatedPod, type: EventType): void {
    pod.version = ++this.#version
    this.#listener('pods', type, pod.version, this.#podText(slot, pod))
  }

  #tellSlice(slot: number): void {
    const service = Math.floor(slot / PODS_PER_SERVICE)
    this.#sliceVersions[service] = ++this.#version
    this.#listener('endpointslices', 'MODIFIED', this.#version, this.#sliceText(service))
  }

  #podText(slot: number, { name, uid, ip, state, version }: SimulatedPod): string {
    const { metadata, spec } = podOf(slot)
    return podText({
      name,
      namespace: metadata.namespace!,
      uid,
      version,
      node: spec.nodeName!,
      app: spec.serviceAccountName,
      ip: state === 'pending' ? '' : ip,
      isReady: state === 'ready',
      isTerminating: state === 'terminating',
    })
  }

  #sliceText(service: number): string {
    const first = service * PODS_PER_SERVICE
    const { metadata, spec } = podOf(first)
    const app = spec.serviceAccountName
    const endpoints: object[] = []
    for (let slot = first; slot < Math.min(first + PODS_PER_SERVICE, this.pods); slot++)
      for (const { name, uid, ip, state } of this.#podsAt(slot))
        if (state !== 'pending')
          endpoints.push({
            addresses: [ip],
            conditions: {
              ready: state === 'ready',
              serving: state !== 'running',
              terminating: state === 'terminating',
            },
            nodeName: podOf(slot).spec.nodeName,
            targetRef: { kind: 'Pod', name, namespace: metadata.namespace, uid },
          })
    return JSON.stringify({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${app}-v4`,
        generateName: `${app}-`,
        namespace: metadata.namespace,
        uid: `uid-slice-${service}`,
        resourceVersion: `${this.#sliceVersions[service]}`,
        labels: {
          'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
          'kubernetes.io/service-name': app,
        },
        ownerReferences: [
          { apiVersion: 'v1', kind: 'Service', name: app, uid: `uid-service-${service}`, controller: true },
        ],
      },
      addressType: 'IPv4',
      endpoints,
      ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    })
  }
}

function withVersion(object: Record<string, unknown>, version: number): object {
  return { ...object, metadata: { ...(object['metadata'] as object), resourceVersion: `${version}` } }
}

function pause(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, STEP_MS))
}
