/**
 * Observations in the pods' own annotation: how replicas of this server tell each other, and what is left of them
 * after a restart. An agent that speaks to us is believed whatever stands there, and has it put right; between its
 * words the newer of what it said and what stands there counts, since it may be speaking to another replica by now.
 * Whoever may edit a pod can write there too: that is believed of this pod, until its agent speaks again.
 */
import type { KubePod } from '../../lib/kube/objects.ts'
import { formatPodStatus, parsePodStatus, statusDetail, type PodStatus } from '../../lib/pod-status.ts'
import type { Observation } from './store.ts'

/** Writes annotations, in its own time. */
export interface StatusAnnotations {
  /** It is to be this text, or to go. `mayWait`: need not be at once. */
  put(pod: KubePod, text: string | undefined, mayWait?: boolean): void
  /** Reports whether what stands in this version of the pod is older than what was put since. */
  isOutdated(pod: KubePod): boolean
  /** Calls the listener when what stands in the annotation of a pod may count again. */
  onSettled(listener: (podUid: string) => void): void
  forget(podUid: string): void
}

/** Clocks of nodes and replicas may differ by so much; what claims to be from further on is not believed. */
const MOST_AHEAD_MS = 60_000

/**
 * What the annotation of a pod, which has changed, adds to what is known of it; undefined when that is nothing.
 * `held`: what is known. `isFirstHand`: from an agent that speaks to us.
 */
export function observationFrom(
  pod: KubePod,
  held: Observation | undefined,
  isFirstHand: boolean,
  nowMs: number,
): Observation | undefined {
  const text = pod.status.mesh
  const { uid, namespace = '', name } = pod.metadata
  const said = { podUid: uid, namespace, name, node: pod.spec.nodeName ?? '', instance: '', startedAtMs: 0 }
  if (text === undefined) {
    if (held === undefined || held.state === 'not-enrolled') return undefined
    return { ...said, state: 'not-enrolled', detail: '', observedAtMs: nowMs }
  }
  const status = parsePodStatus(text)
  if (status === undefined || status.sinceMs > nowMs + MOST_AHEAD_MS) return undefined
  if (held && isSaidBy(held, status)) return undefined
  if (held && isFirstHand && status.sinceMs < wholeSecond(held.observedAtMs)) return undefined
  return { ...said, state: status.state, detail: status.detail, observedAtMs: status.sinceMs }
}

/** What the annotation of the pod should be. What says the same since an earlier time stays. */
export function annotationFor(pod: KubePod, observation: Observation): string | undefined {
  const { state, detail, observedAtMs } = observation
  if (state === 'not-enrolled') return undefined
  const text = pod.status.mesh
  const present = parsePodStatus(text)
  if (present && isSaidBy(observation, present) && present.sinceMs <= observedAtMs) return text
  return formatPodStatus({ state, detail, sinceMs: observedAtMs })
}

/** Reports whether the annotation says what the observation does, whenever it was. */
function isSaidBy(observation: Observation, status: PodStatus): boolean {
  return observation.state === status.state && statusDetail(observation.detail) === status.detail
}

function wholeSecond(atMs: number): number {
  return Math.floor(atMs / 1000) * 1000
}
