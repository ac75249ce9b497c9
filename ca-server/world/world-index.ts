/**
 * Which pods and slices there are under what they are asked for by. Holds keys, not objects: an object that changes
 * without moving changes nothing here, and that is what nearly all changes are.
 */
import type { KubeEndpointSlice, KubeObject, KubePod } from '../../lib/kube/objects.ts'
import { MultiMap } from './multi-map.ts'

type Keys = MultiMap<string, string>

export class WorldIndex {
  readonly podsByUid = new Map<string, string>()
  readonly podsByNode: Keys = new MultiMap()
  readonly podsByNamespace: Keys = new MultiMap()
  readonly podsByIp: Keys = new MultiMap()
  readonly slicesByService: Keys = new MultiMap()
  readonly slicesByPod: Keys = new MultiMap()
  /** Those with an endpoint at the address that does not say which pod it is. */
  readonly slicesByIp: Keys = new MultiMap()

  /** Follows an object from one state to the next; undefined is none. Both are of the same kind and key. */
  move(key: string, before: KubeObject | undefined, after: KubeObject | undefined): void {
    const { kind } = (after ?? before)!
    if (kind === 'Pod') this.#movePod(key, before as KubePod | undefined, after as KubePod | undefined)
    else if (kind === 'EndpointSlice')
      this.#moveSlice(key, before as KubeEndpointSlice | undefined, after as KubeEndpointSlice | undefined)
  }

  #movePod(key: string, before: KubePod | undefined, after: KubePod | undefined): void {
    const uid = before?.metadata.uid
    if (uid !== undefined && uid !== after?.metadata.uid && this.podsByUid.get(uid) === key)
      this.podsByUid.delete(uid)
    if (after && after.metadata.uid !== '') this.podsByUid.set(after.metadata.uid, key)
    const moveOne = (index: Keys, of: (pod: KubePod) => string | undefined): void =>
      moveKey(index, key, before && [of(before) ?? ''], after && [of(after) ?? ''])
    moveOne(this.podsByNode, pod => pod.spec.nodeName)
    moveOne(this.podsByNamespace, pod => pod.metadata.namespace)
    moveKey(this.podsByIp, key, before?.status.podIPs, after?.status.podIPs)
  }

  #moveSlice(key: string, before: KubeEndpointSlice | undefined, after: KubeEndpointSlice | undefined): void {
    const move = (index: Keys, of: (slice: KubeEndpointSlice) => string[]): void =>
      moveKey(index, key, before && of(before), after && of(after))
    move(this.slicesByService, ({ metadata, serviceName }) => [`${metadata.namespace ?? ''}/${serviceName}`])
    move(this.slicesByPod, podsOf)
    move(this.slicesByIp, addressesOf)
  }
}

function moveKey(
  index: Keys,
  key: string,
  before: readonly string[] = [],
  after: readonly string[] = [],
): void {
  if (before.length === after.length && before.every((term, at) => term === after[at])) return
  const kept = new Set(after)
  for (const term of before) if (!kept.has(term)) index.delete(term, key)
  for (const term of kept) index.add(term, key)
}

/** Keys of the pods that a slice names. */
function podsOf({ metadata, endpoints }: KubeEndpointSlice): string[] {
  return endpoints.flatMap(({ targetRef }) =>
    targetRef?.kind === 'Pod' ? [`${targetRef.namespace ?? metadata.namespace ?? ''}/${targetRef.name}`] : [],
  )
}

function addressesOf({ endpoints }: KubeEndpointSlice): string[] {
  return endpoints.flatMap(({ targetRef, addresses }) => (targetRef?.kind === 'Pod' ? [] : addresses))
}
