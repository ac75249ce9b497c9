/** The agents of the cluster, and what each says on its admin port. */
import { errorText } from '../../lib/errors.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import type { Pod } from '../kubernetes/objects.ts'
import { SYSTEM_PODS } from './rollout.ts'
import { AGENT_SELECTOR, SYSTEM_NAMESPACE } from './session.ts'

const ADMIN_PORT = 15000
/** Each takes a connection through the API server. */
const AT_ONCE = 8

export interface AgentAnswer<T> {
  readonly node: string
  readonly pod: string
  readonly value?: T
  /** Why it has not answered. */
  readonly problem?: string
}

/** Running ones that are not on their way out. */
export async function agentPods(api: KubeApi): Promise<Pod[]> {
  const pods = await api.list<Pod>(SYSTEM_PODS, { labelSelector: AGENT_SELECTOR })
  return pods.filter(
    ({ metadata, status }) => metadata.deletionTimestamp === undefined && status.phase === 'Running',
  )
}

/** Asks each agent for the JSON at a path of its admin port. */
export async function askAgents<T>(
  api: KubeApi,
  pods: readonly Pod[],
  path: string,
): Promise<AgentAnswer<T>[]> {
  const { getForwarded } = await import('../kubernetes/port-forward.ts')
  const waiting = [...pods.entries()]
  const answers: AgentAnswer<T>[] = []
  const worker = async () => {
    for (let next; (next = waiting.shift());) {
      const [at, { metadata, spec }] = next
      const of = { node: spec.nodeName ?? '', pod: metadata.name }
      try {
        const target = { namespace: SYSTEM_NAMESPACE, pod: metadata.name, port: ADMIN_PORT }
        answers[at] = { ...of, value: (await getForwarded(api.connection, target, path)) as T }
      } catch (err) {
        answers[at] = { ...of, problem: errorText(err) }
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return answers
}
