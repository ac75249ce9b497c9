/**
 * What the cluster holds right now, by kind and key, with the indices that the rest of the server asks by. A
 * source (a file, the API server) puts objects in; listeners hear of each batch after all of it is in. The world
 * holds objects and says nothing about what they mean.
 */
import { isDeepStrictEqual } from 'node:util'
import type {
  KubeEndpointSlice,
  KubeKind,
  KubeNamespace,
  KubeNode,
  KubeObject,
  KubePod,
  KubeService,
  ObjectMeta,
} from '../../lib/kube/objects.ts'
import { WorldIndex } from './world-index.ts'

/** One object that came (`before` absent), changed, or went (`after` absent). */
export interface WorldChange<T extends KubeObject = KubeObject> {
  readonly kind: T['kind']
  readonly key: string
  readonly before: T | undefined
  readonly after: T | undefined
}

export type WorldListener = (changes: readonly WorldChange[]) => void

/** `namespace/name`, or `name` of what lives in no namespace: unique within a kind. */
export function objectKey(metadata: Pick<ObjectMeta, 'name' | 'namespace'>): string {
  return metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`
}

export interface WorldOptions {
  /** An enrolled pod of which nobody says otherwise takes no plaintext. @default false */
  readonly strictByDefault?: boolean
}

export class World {
  readonly strictByDefault: boolean
  readonly #objects = new Map<KubeKind, Map<string, KubeObject>>()
  readonly #index = new WorldIndex()
  readonly #listeners = new Set<WorldListener>()
  #isSynced = false

  constructor({ strictByDefault = false }: WorldOptions = {}) {
    this.strictByDefault = strictByDefault
  }

  /** Reports whether a source has told everything once. Until then, absence means nothing. */
  get isSynced(): boolean {
    return this.#isSynced
  }

  /** Takes the source's whole story: what it does not name is gone. */
  replaceAll(objects: readonly KubeObject[]): void {
    const gone = new Set<string>()
    for (const [kind, map] of this.#objects) for (const key of map.keys()) gone.add(`${kind} ${key}`)
    for (const object of objects) gone.delete(`${object.kind} ${objectKey(object.metadata)}`)
    const removed = [...gone].map(text => {
      const space = text.indexOf(' ')
      return { kind: text.slice(0, space) as KubeKind, key: text.slice(space + 1) }
    })
    const wasSynced = this.#isSynced
    this.#isSynced = true
    this.#change(objects, removed, !wasSynced)
  }

  /** Takes single changes. Objects that are equal to what is held change nothing. */
  apply(
    upserted: readonly KubeObject[],
    removed: readonly { readonly kind: KubeKind; readonly key: string }[],
  ): void {
    this.#change(upserted, removed, false)
  }

  /** What is not named of a kind is gone: the end of a listing whose objects have been applied part by part. */
  keepOnly(kind: KubeKind, keys: ReadonlySet<string>): void {
    const gone = [...this.#map(kind).keys()].filter(key => !keys.has(key))
    this.#change(
      [],
      gone.map(key => ({ kind, key })),
      false,
    )
  }

  /** Says that every kind has been told once. */
  completed(): void {
    const wasSynced = this.#isSynced
    this.#isSynced = true
    this.#change([], [], !wasSynced)
  }

  /** Calls the listener after each batch, and once (perhaps with no change) when the world is first whole. */
  onChange(listener: WorldListener): void {
    this.#listeners.add(listener)
  }

  node(name: string): KubeNode | undefined {
    return this.#map('Node').get(name) as KubeNode | undefined
  }

  namespace(name: string): KubeNamespace | undefined {
    return this.#map('Namespace').get(name) as KubeNamespace | undefined
  }

  service(key: string): KubeService | undefined {
    return this.#map('Service').get(key) as KubeService | undefined
  }

  pod(key: string): KubePod | undefined {
    return this.#map('Pod').get(key) as KubePod | undefined
  }

  slice(key: string): KubeEndpointSlice | undefined {
    return this.#map('EndpointSlice').get(key) as KubeEndpointSlice | undefined
  }

  /** All of them; goes on while they change. */
  pods(): Iterable<KubePod> {
    return this.#map('Pod').values() as Iterable<KubePod>
  }

  namespaces(): Iterable<KubeNamespace> {
    return this.#map('Namespace').values() as Iterable<KubeNamespace>
  }

  podByUid(uid: string): KubePod | undefined {
    const key = this.#index.podsByUid.get(uid)
    return key === undefined ? undefined : this.pod(key)
  }

  podsOnNode(node: string): Iterable<KubePod> {
    return this.#all<KubePod>('Pod', this.#index.podsByNode.get(node))
  }

  podsInNamespace(namespace: string): Iterable<KubePod> {
    return this.#all<KubePod>('Pod', this.#index.podsByNamespace.get(namespace))
  }

  /** Pods with that address; more than one when an address was reused, or when they share their node's. */
  podsByIp(ip: string): Iterable<KubePod> {
    return this.#all<KubePod>('Pod', this.#index.podsByIp.get(ip))
  }

  /** `key` is the service's. */
  slicesOfService(key: string): Iterable<KubeEndpointSlice> {
    return this.#all<KubeEndpointSlice>('EndpointSlice', this.#index.slicesByService.get(key))
  }

  /** `key` is the pod's. */
  slicesOfPod(key: string): Iterable<KubeEndpointSlice> {
    return this.#all<KubeEndpointSlice>('EndpointSlice', this.#index.slicesByPod.get(key))
  }

  /** Slices with an endpoint at the address that does not say which pod it is. */
  slicesAt(ip: string): Iterable<KubeEndpointSlice> {
    return this.#all<KubeEndpointSlice>('EndpointSlice', this.#index.slicesByIp.get(ip))
  }

  /** How many objects of each kind are held. */
  counts(): ReadonlyMap<KubeKind, number> {
    return new Map([...this.#objects].map(([kind, map]) => [kind, map.size]))
  }

  /** The pod, as soon as there is one with that uid; undefined after `timeoutMs` or when the signal aborts. */
  whenPod(uid: string, timeoutMs: number, signal: AbortSignal): Promise<KubePod | undefined> {
    const now = this.podByUid(uid)
    if (now || signal.aborted) return Promise.resolve(now)
    return new Promise(resolve => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        this.#listeners.delete(look)
        resolve(this.podByUid(uid))
      }
      const look = (): void => {
        if (this.podByUid(uid)) done()
      }
      const timer = setTimeout(done, timeoutMs)
      signal.addEventListener('abort', done)
      this.#listeners.add(look)
    })
  }

  #change(
    upserted: readonly KubeObject[],
    removed: readonly { readonly kind: KubeKind; readonly key: string }[],
    always: boolean,
  ): void {
    const changes: WorldChange[] = []
    for (const { kind, key } of removed) {
      const before = this.#map(kind).get(key)
      if (!before) continue
      this.#map(kind).delete(key)
      this.#index.move(key, before, undefined)
      changes.push({ kind, key, before, after: undefined })
    }
    for (const after of upserted) {
      const key = objectKey(after.metadata)
      const before = this.#map(after.kind).get(key)
      if (before && isDeepStrictEqual(before, after)) continue
      this.#map(after.kind).set(key, after)
      this.#index.move(key, before, after)
      changes.push({ kind: after.kind, key, before, after })
    }
    if (changes.length === 0 && !always) return
    for (const listener of this.#listeners) listener(changes)
  }

  #map(kind: KubeKind): Map<string, KubeObject> {
    let map = this.#objects.get(kind)
    if (!map) this.#objects.set(kind, (map = new Map()))
    return map
  }

  *#all<T extends KubeObject>(kind: T['kind'], keys: Iterable<string>): Generator<T> {
    const map = this.#map(kind)
    for (const key of keys) yield map.get(key) as T
  }
}
