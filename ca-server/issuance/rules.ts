/**
 * Who may have a certificate for which identity. The rules, all of which must hold:
 *
 * 1. the caller's token is bound to a node (and its account is trusted: checked before);
 * 2. the identity is of our trust domain and is the one that the request itself names;
 * 3. a pod of that namespace and service account is on the caller's node: the one named by uid, or any;
 * 4. it is alive, not host-network, and enrolled.
 *
 * "Enrolled" is what the annotations ask for: a pod needs its certificate before its agent can report it so.
 */
import type { KubePod } from '../../lib/kube/objects.ts'
import { parseSpiffe, type SpiffeId } from '../../lib/spiffe.ts'
import type { RequestRefusal } from '../refusal.ts'
import type { Caller } from '../tokens/authenticator.ts'
import { enrolmentOf, isFinished } from '../world/enrolment.ts'
import { objectKey, type World } from '../world/world.ts'

export interface Question {
  readonly caller: Caller
  /** What the request's metadata asks for; undefined when it leaves it to the CSR. */
  readonly impersonated: string | undefined
  /** The one URI of the CSR. */
  readonly csrUri: string
  readonly podUid: string | undefined
}

export type Verdict =
  | { readonly allowed: true; readonly identity: string; readonly node: string; readonly pod: KubePod }
  | { readonly allowed: false; readonly reason: RequestRefusal; readonly detail: string }

// Deletion takes a moment longer than the grace period: the object is there until the kubelet has confirmed.
const TERMINATION_SLACK_MS = 30_000

/** Decides. Reads the world, changes nothing. */
export function decide(world: World, trustDomain: string, question: Question, nowMs: number): Verdict {
  const { caller, impersonated, csrUri, podUid } = question
  if (caller.node === undefined) return no('token-without-node', 'the token is not bound to a node')
  const identity = impersonated ?? csrUri
  if (identity !== csrUri)
    return no('csr-names', `the request names '${csrUri}', but '${identity}' was asked for`)
  const spiffe = parseSpiffe(identity)
  if (!spiffe) return no('identity-malformed', `'${identity}' is not a workload identity`)
  if (spiffe.trustDomain !== trustDomain)
    return no('trust-domain', `'${identity}' is not in trust domain ${trustDomain}`)
  const found = podUid === undefined ? anyPod(world, spiffe, caller.node, nowMs) : world.podByUid(podUid)
  if (!found) {
    const wanted =
      podUid === undefined ? `with identity ${identity} on node ${caller.node}` : `with uid ${podUid}`
    return no('pod-unknown', `there is no pod ${wanted}`)
  }
  const fault = faultOf(world, found, spiffe, caller.node, nowMs)
  if (fault) return no(fault.reason, `pod ${objectKey(found.metadata)} ${fault.detail}`)
  return { allowed: true, identity, node: caller.node, pod: found }
}

/** A pod of that identity on that node: one without fault if there is any, else one whose fault can be told. */
function anyPod(world: World, spiffe: SpiffeId, node: string, nowMs: number): KubePod | undefined {
  let candidate: KubePod | undefined
  for (const pod of world.podsOnNode(node)) {
    if (!hasIdentity(pod, spiffe)) continue
    if (!faultOf(world, pod, spiffe, node, nowMs)) return pod
    candidate ??= pod
  }
  return candidate
}

interface Fault {
  readonly reason: RequestRefusal
  /** Continues a sentence that begins with the pod's name. */
  readonly detail: string
}

function faultOf(
  world: World,
  pod: KubePod,
  spiffe: SpiffeId,
  node: string,
  nowMs: number,
): Fault | undefined {
  const { metadata, spec, status } = pod
  if (spec.nodeName !== node)
    return { reason: 'pod-other-node', detail: `is on node ${spec.nodeName ?? '(none)'}, not on ${node}` }
  if (!hasIdentity(pod, spiffe))
    return {
      reason: 'pod-other-identity',
      detail: `runs as ${metadata.namespace}/${spec.serviceAccountName}, not as ${spiffe.namespace}/${spiffe.serviceAccount}`,
    }
  if (isFinished(pod)) return { reason: 'pod-finished', detail: `has ended (${status.phase})` }
  if (status.phase === 'Unknown') return { reason: 'pod-finished', detail: 'is in an unknown phase' }
  // In Kubernetes the deletion timestamp already includes the grace period.
  const deletedAt = metadata.deletionTimestamp === undefined ? NaN : Date.parse(metadata.deletionTimestamp)
  if (deletedAt + TERMINATION_SLACK_MS < nowMs)
    return { reason: 'pod-terminating', detail: `should be gone since ${metadata.deletionTimestamp}` }
  if (spec.hostNetwork) return { reason: 'pod-host-network', detail: "uses its node's network" }
  if (!enrolmentOf(world, pod).mesh)
    return { reason: 'pod-not-enrolled', detail: 'is not enrolled by its annotations or its namespace' }
  return undefined
}

function hasIdentity(pod: KubePod, spiffe: SpiffeId): boolean {
  return pod.metadata.namespace === spiffe.namespace && pod.spec.serviceAccountName === spiffe.serviceAccount
}

function no(reason: RequestRefusal, detail: string): Verdict {
  return { allowed: false, reason, detail }
}
