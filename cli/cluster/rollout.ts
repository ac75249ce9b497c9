/** Whether what was applied runs: on every node, in every replica, in the version that was asked for. */
import type { KubeApi } from '../kubernetes/api.ts'
import { isReady, troubleOf, type KubeObject, type Pod } from '../kubernetes/objects.ts'
import { pollUntil } from '../kubernetes/poll.ts'
import { AGENT, AGENT_SELECTOR, CA_SELECTOR, CA_SERVER, SYSTEM_NAMESPACE } from './session.ts'

const APPS = `/apis/apps/v1/namespaces/${SYSTEM_NAMESPACE}`
export const AGENTS_PATH = `${APPS}/daemonsets/${AGENT}`
export const CA_SERVER_PATH = `${APPS}/deployments/${CA_SERVER}`
export const SYSTEM_PODS = `/api/v1/namespaces/${SYSTEM_NAMESPACE}/pods`

interface Counts extends KubeObject {
  readonly spec: { readonly replicas?: number }
  readonly status?: Readonly<Record<string, number | undefined>>
}

/** What is still to come, or undefined when all agents are ready. */
export async function agentsPending(api: KubeApi): Promise<string | undefined> {
  const set = await api.get<Counts>(AGENTS_PATH)
  if (!set) return 'there is no DaemonSet culvert-agent'
  const { status = {} } = set
  const wanted = status['desiredNumberScheduled'] ?? 0
  const isSeen = (status['observedGeneration'] ?? 0) >= (set.metadata.generation ?? 0)
  const updated = status['updatedNumberScheduled'] ?? 0
  const ready = status['numberReady'] ?? 0
  // A controller that has not looked yet says 0 of 0.
  if (isSeen && wanted > 0 && updated >= wanted && ready >= wanted) return undefined
  const old = updated < wanted ? `, ${wanted - updated} of them still the old ones` : ''
  return `${ready} of ${wanted} agents are ready${old}${await why(api, AGENT_SELECTOR)}`
}

export async function caServerPending(api: KubeApi): Promise<string | undefined> {
  const deployment = await api.get<Counts>(CA_SERVER_PATH)
  if (!deployment) return 'there is no Deployment culvert-ca'
  const { status = {}, spec } = deployment
  const wanted = spec.replicas ?? 1
  const isSeen = (status['observedGeneration'] ?? 0) >= (deployment.metadata.generation ?? 0)
  const ready = Math.min(status['updatedReplicas'] ?? 0, status['availableReplicas'] ?? 0)
  if (isSeen && ready >= wanted && (status['replicas'] ?? 0) === wanted) return undefined
  return `${ready} of ${wanted} replicas of the ca-server are ready${await why(api, CA_SELECTOR)}`
}

/** Waits for the one, then for the other: agents wait for the ca-server, too. `progress` is told what is waited for. */
export async function waitForRollout(
  api: KubeApi,
  {
    timeoutMs,
    signal,
    progress,
  }: { timeoutMs: number; signal: AbortSignal; progress: (text: string) => void },
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  const left = () => ({ timeoutMs: Math.max(1000, deadline - performance.now()), signal })
  progress('waiting for the ca-server')
  await pollUntil('the ca-server', () => caServerPending(api), left())
  progress('waiting for an agent on every node')
  await pollUntil('the agents', () => agentsPending(api), left())
}

/** What the pods say that are not ready, the first few. */
async function why(api: KubeApi, labelSelector: string): Promise<string> {
  const pods = await api.list<Pod>(SYSTEM_PODS, { labelSelector })
  const troubled = pods.filter(pod => !isReady(pod) && pod.metadata.deletionTimestamp === undefined)
  const said = troubled.flatMap(pod => {
    const trouble =
      troubleOf(pod) ??
      (pod.status.phase === 'Running' ? 'it runs, and is not ready; see its log' : undefined)
    return trouble === undefined ? [] : [`${pod.metadata.name}: ${trouble}`]
  })
  return said.length > 0 ? ` (${said.slice(0, 2).join('; ')})` : ''
}
