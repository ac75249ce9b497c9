/** What the steps of the cluster test share: the cluster, its applications, and short ways of asking. */
import { randomBytes } from 'node:crypto'
import { CulvertError } from '../../lib/errors.ts'
import { until } from '../../lab/demo/facts.ts'
import { expect } from '../../lab/demo/narrator.ts'
import { accessLog, observed } from './agents.ts'
import { ipOf, nodeOf } from './eyes.ts'
import type { KubeJson, Kubectl, PodName } from './kubectl.ts'
import type { Prepared } from './prepare.ts'

export interface Context extends Prepared {
  readonly signal: AbortSignal
}

export const CLIENT = 'shop/client'
export const OLD = 'legacy/old'
const MESH = 'culvert.dev/mesh'
const MTLS = 'culvert.dev/mtls'

/** The pods of a namespace by name, those that are going left out. */
export async function podsOf(kubectl: Kubectl, namespace: string): Promise<KubeJson[]> {
  const pods = await kubectl.list('pods', '-n', namespace)
  return pods.filter(pod => !pod.metadata.deletionTimestamp)
}

export async function podNamed(kubectl: Kubectl, pod: PodName): Promise<KubeJson> {
  const [namespace = '', name = ''] = pod.split('/')
  return await kubectl.get('pod', '-n', namespace, name)
}

/** The server's pod on a node. */
export async function serverOn(kubectl: Kubectl, node: string): Promise<KubeJson> {
  const found = (await podsOf(kubectl, 'shop')).find(
    pod => pod.metadata.labels?.['app'] === 'server' && nodeOf(pod) === node,
  )
  expect(found !== undefined, `no server runs on ${node}`)
  return found
}

/** Asks for the mesh, or (null) for none of it; resolves when every pod of the namespace has been observed so. */
export async function enrol(kubectl: Kubectl, namespace: string, value: 'enabled' | null): Promise<void> {
  await kubectl.annotate(`namespace/${namespace}`, MESH, value)
  const wanted = value === null ? undefined : 'enrolled'
  await until(`${namespace} ${wanted ?? 'outside the mesh'}`, 30_000, async () => {
    const pods = await podsOf(kubectl, namespace)
    return pods.every(pod => observed(pod) === wanted) || undefined
  })
}

export async function setMtls(kubectl: Kubectl, namespace: string, value: 'strict' | null): Promise<void> {
  await kubectl.annotate(`namespace/${namespace}`, MTLS, value)
}

/** What the test's application answers to a request from a pod. Throws `LAB` with how it failed. */
export async function httpGet(
  kubectl: Kubectl,
  from: PodName,
  url: string,
): Promise<{ pod: string; client: string }> {
  const answer = await tryGet(kubectl, from, url)
  if (!answer.ok) throw new CulvertError('LAB', `GET ${url} from ${from}: ${answer.error}`)
  return answer.seen
}

export type Got =
  | { readonly ok: true; readonly seen: { readonly pod: string; readonly client: string } }
  | { readonly ok: false; readonly error: string }

/** The same for requests that may fail; one connection of its own each. */
export async function tryGet(kubectl: Kubectl, from: PodName, url: string): Promise<Got> {
  const ran = await kubectl.exec(from, ['node', 'test/cluster/get.ts', url])
  const text = ran.stdout.toString()
  if (ran.code !== 0 || !text.startsWith('{')) return { ok: false, error: ran.stderr.trim() || text.trim() }
  return JSON.parse(text) as Got
}

/** Waits for a line of a node's access log. */
export async function loggedBy(
  kubectl: Kubectl,
  node: string,
  what: string,
  matches: (line: Readonly<Record<string, unknown>>) => boolean,
): Promise<Readonly<Record<string, unknown>>> {
  return await until(what, 5000, async () => (await accessLog(kubectl, node)).findLast(matches))
}

export function secret(): string {
  return `secret-${randomBytes(12).toString('hex')}`
}

export function url(pod: KubeJson, path = '/'): string {
  return `http://${ipOf(pod)}:8080${path}`
}
