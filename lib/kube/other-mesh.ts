/**
 * Pods that another mesh carries the traffic of. Two meshes in one pod would capture each other's connections, so
 * such a pod is left alone, whatever Culvert's annotations say. What counts is what the other mesh has done to the pod
 * or is bound to do, not what was wished: a namespace labelled for injection has pods without a sidecar.
 */
import type { KubePod, ObjectMeta } from './objects.ts'

interface Marks {
  /** On pods, written by the other mesh's own injector or agent; null stands for any value. */
  readonly annotations: Readonly<Record<string, string | null>>
  /** Name of the container that carries the traffic. */
  readonly container?: string
  readonly text: string
}

const MESHES: readonly Marks[] = [
  {
    annotations: { 'ambient.istio.io/redirection': 'enabled' },
    text: "pod is in Istio's ambient mesh: left alone",
  },
  {
    annotations: { 'sidecar.istio.io/status': null },
    container: 'istio-proxy',
    text: 'pod has an Istio proxy: left alone',
  },
  {
    annotations: { 'linkerd.io/proxy-version': null },
    container: 'linkerd-proxy',
    text: 'pod has a Linkerd proxy: left alone',
  },
]

/** Tells Istio's node agent which pods to take, without their being started again. */
const AMBIENT_LABEL = 'istio.io/dataplane-mode'

export type MarkedPod = Pick<ObjectMeta, 'annotations' | 'labels'> & Pick<KubePod['spec'], 'meshProxy'>

/** Says that the pod is another mesh's, for people; undefined when it is not. */
export function otherMeshOf(pod: MarkedPod, namespace?: Pick<ObjectMeta, 'labels'>): string | undefined {
  const { annotations = {}, meshProxy } = pod
  const marked = MESHES.find(
    mesh =>
      (meshProxy !== undefined && mesh.container === meshProxy) ||
      Object.entries(mesh.annotations).some(
        ([name, value]) =>
          Object.hasOwn(annotations, name) && (value ?? annotations[name]) === annotations[name],
      ),
  )
  if (marked) return marked.text
  const mode = pod.labels?.[AMBIENT_LABEL] ?? namespace?.labels?.[AMBIENT_LABEL]
  return mode === 'ambient' ? MESHES[0]!.text : undefined
}
