/**
 * What a new version of a lab file asks for, compared with the version before: like `kubectl apply --prune`.
 * What was changed by commands meanwhile stays, unless the file now says something else about the same object.
 */
import { isDeepStrictEqual } from 'node:util'
import { keyOf } from '../../lib/kube/manifest.ts'
import type { KubeObject, KubePod } from '../../lib/kube/objects.ts'

export interface Plan {
  /** Objects other than pods to add or replace. */
  readonly put: readonly Exclude<KubeObject, KubePod>[]
  /** Keys of objects other than pods. */
  readonly drop: readonly string[]
  readonly addPods: readonly KubePod[]
  /** Pods with another spec: they go and come again. */
  readonly replacePods: readonly KubePod[]
  /** Pods of which only labels or annotations are others. */
  readonly relabelPods: readonly KubePod[]
  /** Keys. */
  readonly removePods: readonly string[]
}

export function planChanges(before: readonly KubeObject[], after: readonly KubeObject[]): Plan {
  const had = new Map(before.map(object => [keyOf(object), object]))
  const has = new Set(after.map(keyOf))
  const changed = after.filter(object => !isDeepStrictEqual(object, had.get(keyOf(object))))
  const gone = before.filter(object => !has.has(keyOf(object)))
  const pods = changed.filter(object => object.kind === 'Pod')
  const known = pods.filter(pod => had.has(keyOf(pod)))
  const isSameSpec = (pod: KubePod) => {
    const old = had.get(keyOf(pod))
    return old?.kind === 'Pod' && isDeepStrictEqual([old.spec, old.status], [pod.spec, pod.status])
  }
  return {
    put: changed.filter(object => object.kind !== 'Pod'),
    drop: gone.filter(object => object.kind !== 'Pod').map(keyOf),
    addPods: pods.filter(pod => !had.has(keyOf(pod))),
    replacePods: known.filter(pod => !isSameSpec(pod)),
    relabelPods: known.filter(isSameSpec),
    removePods: gone.filter(object => object.kind === 'Pod').map(keyOf),
  }
}
