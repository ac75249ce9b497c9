/**
 * What the annotations of a pod and its namespace ask for, and what the pod's state makes of it. This is the
 * desired side; what agents observed is in reports/.
 */
import { mergeEnrolment, parseEnrolment, type Enrolment, type EnrolmentWishes } from '../../lib/enrolment.ts'
import type { KubeNamespace, KubePod, ObjectMeta } from '../../lib/kube/objects.ts'
import { otherMeshOf } from '../../lib/kube/other-mesh.ts'
import type { World } from './world.ts'

/** By annotations, which many pods share: a sweep looks at every entry of a weak map. */
const wishesOf = new WeakMap<object, EnrolmentWishes>()
const NO_WISHES: EnrolmentWishes = { problems: [] }

/** The annotations of one object, read once. */
export function wishes({ annotations }: ObjectMeta): EnrolmentWishes {
  if (!annotations) return NO_WISHES
  let found = wishesOf.get(annotations)
  if (!found) wishesOf.set(annotations, (found = parseEnrolment(annotations)))
  return found
}

/**
 * What holds for a pod: its own annotations over its namespace's. Never in the mesh, whatever they say, are a
 * host-network pod, whose addresses are its node's, and one that is another mesh's.
 */
export function enrolmentOf(world: World, pod: KubePod): Enrolment {
  const { metadata, spec } = pod
  const namespace = world.namespace(metadata.namespace ?? '')
  const around = namespace ? withDefaults(world, namespace.metadata) : NO_WISHES
  const merged = mergeEnrolment(around, wishes(metadata))
  if (!merged.mesh) return merged
  if (spec.hostNetwork) return { ...merged, mesh: false }
  const other = otherMeshOf({ ...metadata, ...spec }, namespace?.metadata)
  return other === undefined ? merged : { ...merged, mesh: false, problems: [...merged.problems, other] }
}

/** What agents are to make of a new pod of the namespace that they have not been told of yet. */
export function namespaceWishes(world: World, { metadata }: KubeNamespace): EnrolmentWishes {
  const said = withDefaults(world, metadata)
  const other = said.mesh === true ? otherMeshOf({}, metadata) : undefined
  return other === undefined ? said : { ...said, mesh: false }
}

/** A namespace's annotations over the cluster's default. */
function withDefaults(world: World, metadata: ObjectMeta): EnrolmentWishes {
  const said = wishes(metadata)
  return world.strictByDefault && said.strictInbound === undefined ? { ...said, strictInbound: true } : said
}

/** Reports whether the pod's containers have all ended for good: its addresses may belong to another by now. */
export function isFinished(pod: KubePod): boolean {
  return pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed'
}
