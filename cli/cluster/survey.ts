/** What the cluster holds that concerns us, read once: and which pods should be in the mesh by their annotations. */
import { ANNOTATION, mergeEnrolment, parseEnrolment, type Enrolment } from '../../lib/enrolment.ts'
import { parsePodStatus, type PodStatus } from '../../lib/pod-status.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import type { KubeObject, Node, Pod } from '../kubernetes/objects.ts'

export interface SurveyedPod {
  readonly pod: Pod
  readonly namespace: string
  readonly name: string
  readonly node: string
  /** What its annotations and its namespace's ask for. */
  readonly wanted: Enrolment
  /** What its agent has observed, as the ca-server wrote it; undefined when nothing was written. */
  readonly observed: PodStatus | undefined
}

export interface Survey {
  readonly nodes: readonly Node[]
  readonly namespaces: readonly KubeObject[]
  readonly pods: readonly SurveyedPod[]
}

/** Pods that have ended, and those that have no node yet, are left out. */
export async function surveyOf(api: KubeApi): Promise<Survey> {
  const [nodes, namespaces, pods] = await Promise.all([
    api.list<Node>('/api/v1/nodes'),
    api.list('/api/v1/namespaces'),
    api.list<Pod>('/api/v1/pods'),
  ])
  const wishes = new Map(
    namespaces.map(({ metadata }) => [metadata.name, parseEnrolment(metadata.annotations)] as const),
  )
  return {
    nodes,
    namespaces,
    pods: pods
      .filter(({ spec, status }) => spec.nodeName !== undefined && !isOver(status.phase))
      .map(pod => {
        const { name, namespace = '', annotations } = pod.metadata
        const own = parseEnrolment(annotations)
        const wanted = mergeEnrolment(wishes.get(namespace) ?? { problems: [] }, own)
        return {
          pod,
          namespace,
          name,
          node: pod.spec.nodeName ?? '',
          wanted: pod.spec.hostNetwork ? { ...wanted, mesh: false } : wanted,
          observed: parsePodStatus(annotations?.[ANNOTATION.status]),
        }
      }),
  }
}

/** Pods that should be in the mesh. */
export function wantedIn({ pods }: Survey): SurveyedPod[] {
  return pods.filter(({ wanted }) => wanted.mesh)
}

function isOver(phase: string | undefined): boolean {
  return phase === 'Succeeded' || phase === 'Failed'
}
