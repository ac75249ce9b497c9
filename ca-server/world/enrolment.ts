/**
 * What the annotations of a pod and its namespace ask for, and what the pod's state makes of it. This is the
 * desired side; what agents observed is in reports/.
 */
import { mergeEnrolment, parseEnrolment, type Enrolment, type EnrolmentWishes } from '../../lib/enrolment.ts'
import type { KubePod, ObjectMeta } from '../../lib/kube/objects.ts'
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
 * What holds for a pod: its own annotations over its namespace's. A host-network pod is never in the mesh,
 * whatever they say: its addresses are its node's.
 */
export function enrolmentOf(world: World, pod: KubePod): Enrolment {
  const namespace = world.namespace(pod.metadata.namespace ?? '')
  const merged = mergeEnrolment(namespace ? wishes(namespace.metadata) : NO_WISHES, wishes(pod.metadata))
  return pod.spec.hostNetwork ? { ...merged, mesh: false } : merged
}

/** Reports whether the pod's containers have all ended for good: its addresses may belong to another by now. */
export function isFinished(pod: KubePod): boolean {
  return pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed'
}
