/** What an apply has changed in an object, field by field, for people to read. */

/** Kept by the server, or different at every write. */
const NOT_OURS = new Set([
  'metadata.managedFields',
  'metadata.resourceVersion',
  'metadata.generation',
  'metadata.creationTimestamp',
  'metadata.uid',
  'metadata.annotations.deprecated.daemonset.template.generation',
  'metadata.annotations.deployment.kubernetes.io/revision',
  'status',
])

/** `spec.replicas: 2 → 3`, one for each field that differs; the elements of lists by their names, where they have some. */
export function differencesOf(before: unknown, after: unknown, path = ''): string[] {
  if (NOT_OURS.has(path) || Object.is(before, after)) return []
  if (isMapping(before) && isMapping(after))
    return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap(key =>
      differencesOf(before[key], after[key], path === '' ? key : `${path}.${key}`),
    )
  if (Array.isArray(before) && Array.isArray(after)) {
    const [had, has] = [byName(before), byName(after)]
    return [...new Set([...had.keys(), ...has.keys()])].flatMap(name =>
      differencesOf(had.get(name), has.get(name), `${path}[${name}]`),
    )
  }
  return [`${path}: ${shown(before)} → ${shown(after)}`]
}

function byName(list: readonly unknown[]): Map<string, unknown> {
  const names = list.map((item, at) =>
    isMapping(item) && typeof item['name'] === 'string' ? item['name'] : String(at),
  )
  const isUnique = new Set(names).size === names.length
  return new Map(list.map((item, at) => [isUnique ? names[at]! : String(at), item]))
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const LONGEST = 60

function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}
