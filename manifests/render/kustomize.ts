/**
 * As much of kustomize as our own tree uses: resources, components, labels, patches, images and generated ConfigMaps.
 * Anything else in a kustomization is an error, not a difference. Unlike kustomize it works on YAML documents, so that
 * the comments, which say why a thing is there, are still there in what people apply.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { Document, isMap, isScalar, parseAllDocuments, YAMLMap } from 'yaml'
import { CulvertError } from '../../lib/errors.ts'
import { mergePatch } from './merge.ts'

interface Kustomization {
  readonly kind: 'Kustomization' | 'Component'
  readonly namespace?: string
  readonly resources?: readonly string[]
  readonly components?: readonly string[]
  readonly patches?: readonly { readonly path: string }[]
  readonly labels?: readonly {
    readonly pairs: Readonly<Record<string, string>>
    readonly includeSelectors: false
  }[]
  readonly images?: readonly { readonly name: string; readonly newName?: string; readonly newTag?: string }[]
  readonly configMapGenerator?: readonly {
    readonly name: string
    readonly namespace?: string
    readonly files: readonly string[]
    readonly options: {
      readonly disableNameSuffixHash: true
      readonly labels?: Readonly<Record<string, string>>
    }
  }[]
}

const KNOWN = new Set([
  'apiVersion',
  'kind',
  'resources',
  'components',
  'patches',
  'labels',
  'images',
  'configMapGenerator',
])

/** The objects of the kustomization in `directory`, in the order in which they are named. Throws `INPUT`. */
export function renderKustomization(directory: string): Document[] {
  return apply(directory, [])
}

function apply(directory: string, given: Document[]): Document[] {
  const kustomization = read(directory)
  const objects = [...given]
  for (const path of kustomization.resources ?? []) {
    const at = resolve(directory, path)
    objects.push(...(statSync(at).isDirectory() ? apply(at, []) : documentsOf(at)))
  }
  for (const generator of kustomization.configMapGenerator ?? [])
    objects.push(configMap(directory, generator))
  let all = objects
  for (const path of kustomization.components ?? []) all = apply(resolve(directory, path), all)
  for (const { path } of kustomization.patches ?? [])
    for (const patch of documentsOf(join(directory, path))) patchOne(all, patch, path)
  for (const { pairs } of kustomization.labels ?? [])
    for (const object of all)
      for (const [key, value] of Object.entries(pairs)) object.setIn(['metadata', 'labels', key], value)
  for (const image of kustomization.images ?? []) for (const object of all) setImage(object, image)
  return all
}

function read(directory: string): Kustomization {
  const file = join(directory, 'kustomization.yaml')
  if (!existsSync(file)) throw new CulvertError('INPUT', `${file} is not there`)
  const [document] = documentsOf(file)
  const kustomization = document?.toJS() as Kustomization
  for (const key of Object.keys(kustomization))
    if (!KNOWN.has(key)) throw new CulvertError('INPUT', `${file}: '${key}' is not understood here`)
  return kustomization
}

function documentsOf(file: string): Document[] {
  const documents = parseAllDocuments(readFileSync(file, 'utf8'))
  for (const { errors } of documents)
    if (errors[0]) throw new CulvertError('INPUT', `${file}: ${errors[0].message}`)
  return [...documents].filter(document => isMap(document.contents))
}

function configMap(
  directory: string,
  { name, namespace, files, options }: NonNullable<Kustomization['configMapGenerator']>[number],
): Document {
  return new Document({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, ...(namespace && { namespace }), ...(options.labels && { labels: options.labels }) },
    data: Object.fromEntries(
      files.map(file => [basename(file), readFileSync(join(directory, file), 'utf8')]),
    ),
  })
}

/** Whose kind, namespace and name are the patch's. */
function patchOne(objects: readonly Document[], patch: Document, path: string): void {
  const wanted = keyOf(patch)
  const target = objects.find(object => keyOf(object) === wanted)
  if (!target) throw new CulvertError('INPUT', `${path}: there is no ${wanted} to patch`)
  mergePatch(target.contents as YAMLMap, patch.contents as YAMLMap)
}

/** `apps/v1 Deployment culvert-system/culvert-ca` */
export function keyOf(object: Document): string {
  const at = (...path: string[]) => (object.getIn(path) as string | undefined) ?? ''
  return `${at('apiVersion')} ${at('kind')} ${at('metadata', 'namespace')}/${at('metadata', 'name')}`
}

function setImage(
  object: Document,
  { name, newName, newTag }: { readonly name: string; readonly newName?: string; readonly newTag?: string },
): void {
  const containers = object.getIn(['spec', 'template', 'spec', 'containers'])
  if (!containers || typeof containers !== 'object' || !('items' in containers)) return
  for (const container of containers.items as unknown[]) {
    if (!isMap(container)) continue
    const image = container.get('image', true)
    if (!isScalar(image)) continue
    const { name: had, tag } = splitImage(String(image.value))
    if (had === name) image.value = `${newName ?? name}:${newTag ?? tag}`
  }
}

/** A colon in the last step of the path begins the tag; in the first one it begins a port. */
export function splitImage(image: string): { readonly name: string; readonly tag: string } {
  const at = image.lastIndexOf(':')
  return at > image.lastIndexOf('/')
    ? { name: image.slice(0, at), tag: image.slice(at + 1) }
    : { name: image, tag: '' }
}
