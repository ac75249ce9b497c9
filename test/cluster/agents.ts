/** What Culvert's own parts say, as an operator would ask them: status annotations, logs, the agents' admin port. */
import { CulvertError } from '../../lib/errors.ts'
import type { AccessLine } from '../../lab/demo/facts.ts'
import { ipOf, nodeOf } from './eyes.ts'
import type { KubeJson, Kubectl, PodName } from './kubectl.ts'

export const SYSTEM = 'culvert-system'
const STATUS = 'culvert.dev/status'

/** The agents that run, one for each node; while they are replaced, the newest. */
export async function agentsByNode(kubectl: Kubectl): Promise<Map<string, KubeJson>> {
  const pods = await kubectl.list('pods', '-n', SYSTEM, '-l', 'app.kubernetes.io/name=culvert-agent')
  return new Map(pods.filter(pod => !pod.metadata.deletionTimestamp).map(pod => [nodeOf(pod), pod]))
}

export async function agentOn(kubectl: Kubectl, node: string): Promise<PodName> {
  const pod = (await agentsByNode(kubectl)).get(node)
  if (pod) return `${SYSTEM}/${pod.metadata.name}`
  throw new CulvertError('KUBERNETES', `no agent runs on node ${node}`)
}

/** The access-log lines of a node's agent, oldest first. */
export async function accessLog(kubectl: Kubectl, node: string): Promise<AccessLine[]> {
  const text = await kubectl.logs(await agentOn(kubectl, node), '--tail=2000')
  return text
    .split('\n')
    .filter(line => line.includes('"scope":"access"') && line.endsWith('}'))
    .map(line => JSON.parse(line) as AccessLine)
}

/** What a node's agent answers on its admin port, which only its own namespace can reach. */
export async function admin(kubectl: Kubectl, node: string, path: string): Promise<unknown> {
  return JSON.parse(await askAgent(kubectl, node, `http://127.0.0.1:15000${path}`)) as unknown
}

/** A node's metrics, as Prometheus would read them. */
export async function metricsOf(kubectl: Kubectl, node: string): Promise<string> {
  return await askAgent(kubectl, node, 'http://127.0.0.1:15020/metrics')
}

async function askAgent(kubectl: Kubectl, node: string, url: string): Promise<string> {
  const ask = `fetch('${url}').then(async answer => process.stdout.write(await answer.text()))`
  const ran = await kubectl.exec(await agentOn(kubectl, node), ['node', '-e', ask])
  if (ran.code === 0) return ran.stdout.toString()
  throw new CulvertError('KUBERNETES', `${url} of the agent on ${node}: ${ran.stderr.trim()}`)
}

/** The first word of what was observed of a pod: `enrolled`, `pending`, `drifted`; undefined when nothing is said. */
export function observed(pod: KubeJson): string | undefined {
  return /^[a-z-]+/.exec(pod.metadata.annotations?.[STATUS] ?? '')?.[0]
}

/** What tells that a pod is still the one it was: its uid, when its containers started, and how often. */
export function lifeOf(pod: KubeJson): string {
  const statuses = pod.status.containerStatuses ?? []
  const containers = statuses.map(
    ({ name, restartCount, state }) => `${name} ${state?.running?.startedAt} ${restartCount}`,
  )
  return `${pod.metadata.name} ${pod.metadata.uid} ${ipOf(pod)}: ${containers.join(', ')}`
}

export function isReady(pod: KubeJson): boolean {
  return (pod.status.conditions ?? []).some(({ type, status }) => type === 'Ready' && status === 'True')
}
