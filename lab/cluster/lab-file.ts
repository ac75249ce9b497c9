/**
 * A lab file checked as a whole, before anything is built of it: Kubernetes objects, of which pods may say
 * where they run by `spec.nodeName` or the annotation `culvert.dev/lab-node`.
 */
import { readFileSync } from 'node:fs'
import { CulvertError } from '../../lib/errors.ts'
import { keyOf, parseManifest } from '../../lib/kube/manifest.ts'
import type { KubeNamespace, KubeNode, KubeObject, KubePod } from '../../lib/kube/objects.ts'
import { checkNodeName } from '../names.ts'

/** Says on which node of the lab a pod runs; taken off before others see the pod. */
export const LAB_NODE_ANNOTATION = 'culvert.dev/lab-node'
/** A node with this annotation set to `foreign` has no agent of the lab's. */
export const NODE_AGENT_ANNOTATION = 'culvert.dev/agent'

/** Namespaces that every cluster has, and the one that Culvert itself runs in. */
export const SYSTEM_NAMESPACES: readonly string[] = ['default', 'kube-system', 'culvert-system']

const DEFAULT_NODES: readonly string[] = ['node-a', 'node-b']

export interface LabFile {
  readonly objects: readonly KubeObject[]
  /** In the order they get their addresses in; at least one. */
  readonly nodes: readonly string[]
}

/** Reads a lab file. Throws `INPUT` naming every problem, or that there is no such file. */
export function readLabFile(path: string): LabFile {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (err) {
    throw new CulvertError('INPUT', `the lab file ${path} cannot be read`, { cause: err })
  }
  return parseLabFile(text, path)
}

/** As `readLabFile`, from text; `fileName` is for messages. */
export function parseLabFile(text: string, fileName: string): LabFile {
  const objects = parseManifest(text, fileName)
  const nodes = nodesOf(objects)
  for (const node of nodes) checkNodeName(node)
  const namespaces = new Set([...SYSTEM_NAMESPACES, ...namespacesOf(objects)])
  const problems = problemsOf(objects, new Set(nodes), namespaces)
  if (problems.length > 0)
    throw new CulvertError('INPUT', problems.map(problem => `${fileName}: ${problem}`).join('\n'))
  return { objects, nodes }
}

/** Objects that cannot be put into a cluster with these nodes and namespaces, one sentence each. */
export function problemsOf(
  objects: readonly KubeObject[],
  nodes: ReadonlySet<string>,
  namespaces: ReadonlySet<string>,
): string[] {
  const problems: string[] = []
  for (const object of objects) {
    const { namespace } = object.metadata
    if (namespace !== undefined && !namespaces.has(namespace))
      problems.push(`${keyOf(object)}: metadata.namespace is '${namespace}', and there is no such Namespace`)
    if (object.kind !== 'Pod') continue
    const node = placeOf(object)
    if (node !== undefined && !nodes.has(node))
      problems.push(`${keyOf(object)}: node '${node}' does not exist (${[...nodes].join(', ')} do)`)
  }
  return problems
}

/** The node that a pod asks for. */
export function placeOf(pod: KubePod): string | undefined {
  return pod.metadata.annotations?.[LAB_NODE_ANNOTATION] ?? pod.spec.nodeName
}

/** Reports whether the lab leaves a node's data plane to someone else. */
export function isForeign(node: KubeNode | undefined): boolean {
  return node?.metadata.annotations?.[NODE_AGENT_ANNOTATION] === 'foreign'
}

/** The file's Nodes; without any, those that its pods name; without those, two. */
function nodesOf(objects: readonly KubeObject[]): string[] {
  const declared = objects.filter(object => object.kind === 'Node').map(node => node.metadata.name)
  if (declared.length > 0) return declared
  const named = objects.flatMap(object => (object.kind === 'Pod' ? (placeOf(object) ?? []) : []))
  return named.length > 0 ? [...new Set(named)].sort() : [...DEFAULT_NODES]
}

function namespacesOf(objects: readonly KubeObject[]): string[] {
  return objects
    .filter((object): object is KubeNamespace => object.kind === 'Namespace')
    .map(namespace => namespace.metadata.name)
}
