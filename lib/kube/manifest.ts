/**
 * Files of Kubernetes objects: several YAML documents, as `kubectl apply -f` takes them. All problems of a file
 * are told in one error, each with the document's number, the object's name and the field's path.
 */
import { stringify } from 'yaml'
import { CulvertError } from '../errors.ts'
import { printable } from '../printable.ts'
import { DocumentReader } from './documents.ts'
import { Fields } from './fields.ts'
import { API_VERSIONS, isKubeKind, readObject } from './read.ts'
import { writeObject } from './write.ts'
import type { KubeKind, KubeObject } from './objects.ts'

// An operator can act on a few at once; the rest is usually the same mistake again.
const MAX_PROBLEMS = 20
/** A file may be anything, and its words end up on a terminal. */
const LONGEST_PROBLEM = 400

/**
 * The objects of a file in its order, lists flattened, empty documents left out. `fileName` is for messages.
 * A uid that is not given becomes `''`, an absent status that of a pending pod. Whoever reads a file again and again hands
 * over the same `reader`.
 * Throws `INPUT` naming every problem (the first 20), one a line.
 */
export function parseManifest(text: string, fileName: string, reader = new DocumentReader()): KubeObject[] {
  const problems: string[] = []
  const objects: KubeObject[] = []
  const places = new Map<string, string>()
  reader.read(text, problems).forEach((document, at) => {
    for (const { place, value, kind } of flatten(document, `document ${at + 1}`, undefined)) {
      const found: string[] = []
      const object = readOne(value, kind, found)
      const title = titleOf(value, kind)
      const whole = title === '' ? place : `${place} (${title})`
      problems.push(...found.map(problem => `${whole}: ${problem}`))
      if (!object || found.length > 0) continue
      const key = keyOf(object)
      const earlier = places.get(key)
      if (earlier) problems.push(`${whole}: is already in ${earlier}`)
      places.set(key, place)
      objects.push(object)
    }
  })
  if (problems.length > 0) throw new CulvertError('INPUT', report(problems, fileName))
  return objects
}

/** The objects as multi-document YAML in Kubernetes' own shape; `parseManifest` gives them back. */
export function stringifyManifest(objects: readonly KubeObject[]): string {
  return objects.map(stringifyObject).join('---\n')
}

/** Objects are replaced and not changed: what was written of one holds. */
const written = new WeakMap<KubeObject, string>()

function stringifyObject(object: KubeObject): string {
  let text = written.get(object)
  if (text === undefined) {
    text = stringify(writeObject(object), { aliasDuplicateObjects: false, lineWidth: 0 })
    written.set(object, text)
  }
  return text
}

/** `Pod shop/client`, `Node node-a`: unique among all objects. */
export function keyOf(object: KubeObject): string {
  const { namespace, name } = object.metadata
  return `${object.kind} ${namespace === undefined ? name : `${namespace}/${name}`}`
}

interface Found {
  readonly place: string
  readonly value: unknown
  /** What the list around it says its items are. */
  readonly kind: KubeKind | undefined
}

/** The document itself, or the items of the list (`List`, `PodList`, …) that it is, lists within lists too. */
function* flatten(value: unknown, place: string, kind: KubeKind | undefined): Generator<Found> {
  if (value === null || value === undefined) return
  const fields = new Fields(value, '', [])
  const own = fields.get('kind')
  const items = fields.get('items')
  if (typeof own !== 'string' || !own.endsWith('List') || !Array.isArray(items)) {
    yield { place, value, kind }
    return
  }
  const itemKind = own.slice(0, -'List'.length)
  for (const [at, item] of items.entries())
    yield* flatten(item ?? {}, `${place}, items[${at}]`, isKubeKind(itemKind) ? itemKind : undefined)
}

function readOne(value: unknown, listKind: KubeKind | undefined, found: string[]): KubeObject | undefined {
  const fields = new Fields(value, '', found)
  if (found.length > 0) return undefined
  const kind = fields.text('kind') ?? listKind
  if (kind === undefined) {
    fields.problem('kind', 'is required')
    return undefined
  }
  if (!isKubeKind(kind)) {
    fields.problem(
      'kind',
      `is '${kind}', which is not understood (${Object.keys(API_VERSIONS).join(', ')} are)`,
    )
    return undefined
  }
  const apiVersion = fields.text('apiVersion') ?? (listKind === undefined ? undefined : API_VERSIONS[kind])
  if (apiVersion === undefined) fields.problem('apiVersion', 'is required')
  else if (apiVersion !== API_VERSIONS[kind])
    fields.problem('apiVersion', `is '${apiVersion}', but a ${kind} is read as ${API_VERSIONS[kind]}`)
  return readObject(kind, fields)
}

/** `Pod shop/client`, as far as the object says. */
function titleOf(value: unknown, listKind: KubeKind | undefined): string {
  const fields = new Fields(value, '', [])
  const metadata = fields.child('metadata')
  const kind = fields.get('kind') ?? listKind
  const isText = (part: unknown) => typeof part === 'string' && part !== ''
  const name = [metadata.get('namespace'), metadata.get('name')].filter(isText).map(String).join('/')
  return [kind, name].filter(isText).map(String).join(' ')
}

function report(problems: readonly string[], fileName: string): string {
  const shown = problems
    .slice(0, MAX_PROBLEMS)
    .map(problem => `${fileName}: ${printable(problem, LONGEST_PROBLEM)}`)
  if (problems.length > shown.length) shown.push(`${fileName}: and ${problems.length - shown.length} more`)
  return shown.join('\n')
}
