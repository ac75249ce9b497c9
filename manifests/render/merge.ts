/**
 * A strategic merge patch, as far as we use it: mappings are merged, lists of things that have a name (or a path that
 * they are mounted at) are merged by it, other lists and plain values are replaced. No directives.
 */
import { isMap, isScalar, isSeq, type YAMLMap, type YAMLSeq } from 'yaml'

/** By which field the elements of a list are the same ones: `patchMergeKey` of the API's Go types. */
const MERGE_KEY: Readonly<Record<string, string>> = {
  containers: 'name',
  initContainers: 'name',
  env: 'name',
  volumes: 'name',
  volumeMounts: 'mountPath',
  ports: 'containerPort',
}

/** Changes `target` to what the patch makes of it. New elements come before those that were there, as with kustomize. */
export function mergePatch(target: YAMLMap, patch: YAMLMap): void {
  for (const pair of patch.items) {
    const key = String(isScalar(pair.key) ? pair.key.value : pair.key)
    const had = target.get(key, true)
    if (isMap(had) && isMap(pair.value)) mergePatch(had, pair.value)
    else if (isSeq(had) && isSeq(pair.value) && isMergeable(key, had))
      mergeList(had, pair.value, MERGE_KEY[key]!)
    else target.set(pair.key, pair.value)
  }
}

function isMergeable(key: string, list: YAMLSeq): boolean {
  const by = MERGE_KEY[key]
  return by !== undefined && list.items.every(item => isMap(item) && item.has(by))
}

function mergeList(target: YAMLSeq, patch: YAMLSeq, by: string): void {
  const added: unknown[] = []
  for (const item of patch.items) {
    if (!isMap(item)) continue
    const same = target.items.find(had => isMap(had) && had.get(by) === item.get(by))
    if (isMap(same)) mergePatch(same, item)
    else added.push(item)
  }
  target.items.unshift(...added)
}
