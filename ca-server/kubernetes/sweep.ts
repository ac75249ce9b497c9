/**
 * What the replica that leads looks for, every few seconds, in the whole cluster:
 *
 * - pods that should be in the mesh and that nobody says anything of: their status is that no agent reports;
 * - pods that are pending for long, drifted, another mesh's, or annotated with what is not understood: Events;
 * - the status of pods that should not be in the mesh, on nodes where no agent runs that would take it away;
 * - nodes with pods of the mesh and without an agent: an Event.
 *
 * That an agent is silent says nothing of pods that it has enrolled: they stay so while it cannot reach us.
 */
import { setImmediate } from 'node:timers/promises'
import { otherMeshOf } from '../../lib/kube/other-mesh.ts'
import type { KubePod } from '../../lib/kube/objects.ts'
import { formatPodStatus } from '../../lib/pod-status.ts'
import { isForeign } from '../discovery/workloads.ts'
import type { StatusAnnotations } from '../reports/annotation.ts'
import type { Observed } from '../reports/observed.ts'
import { enrolmentOf, isFinished, wishes } from '../world/enrolment.ts'
import type { World } from '../world/world.ts'
import type { EventRecorder, Occurrence, Subject } from './event-recorder.ts'
import { Since } from './since.ts'
import { StandingFaults } from './standing.ts'

export interface SweepOptions {
  readonly world: World
  readonly observed: Pick<Observed, 'of'>
  readonly annotations: Pick<StatusAnnotations, 'put'>
  readonly recorder: Pick<EventRecorder, 'tell'>
  /** Of the agents, `namespace/service-account`. */
  readonly agentAccounts: ReadonlySet<string>
  /** Reports whether this replica still leads. */
  readonly isLeading: () => boolean
  /** Unix milliseconds. @default Date.now */
  readonly nowMs?: () => number
}

/** A pod of which no agent has said anything for so long has none. */
const SILENT_MS = 30_000
/** Most pods are enrolled within a second; what takes so long is told. */
const PENDING_MS = 15_000
/** An agent that is replaced is away for less. */
const WITHOUT_AGENT_MS = 60_000
/** Pods that are looked at in a row. */
const PORTION = 1000

export class Sweep {
  readonly #options: SweepOptions
  readonly #nowMs: () => number
  readonly #faults: StandingFaults
  /** By pod uid: since when nobody says anything of it. */
  readonly #silent = new Since()
  /** By node: since when no agent runs there, with pods that want one. */
  readonly #bare = new Since()

  constructor(options: SweepOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? Date.now
    this.#faults = new StandingFaults(options.recorder)
  }

  /** Looks at everything once; stops when this replica leads no more. */
  async look(): Promise<void> {
    const { world, isLeading } = this.#options
    if (!world.isSynced) return
    const meshPods = new Map<string, number>()
    let looked = 0
    for (const namespace of world.namespaces()) {
      const subject = { apiVersion: 'v1', kind: 'Namespace', ...namesOf(namespace.metadata) } as const
      this.#misunderstood(subject, wishes(namespace.metadata).problems)
    }
    for (const pod of world.pods()) {
      if (++looked % PORTION === 0) await setImmediate()
      if (!isLeading()) return
      if (this.#lookAt(pod)) increment(meshPods, pod.spec.nodeName!)
    }
    for (const [node, count] of meshPods) this.#lookAtNode(node, count)
    this.#faults.endRound()
    this.#silent.endRound()
    this.#bare.endRound()
  }

  /** What was seen is not true any more when another replica has led meanwhile. */
  reset(): void {
    this.#faults.clear()
    this.#silent.clear()
    this.#bare.clear()
  }

  /** Reports whether the pod is in the mesh, or was. */
  #lookAt(pod: KubePod): boolean {
    const { metadata, spec, status } = pod
    const { world } = this.#options
    if (spec.nodeName === undefined || metadata.deletionTimestamp !== undefined) return false
    if (isForeign(world, spec.nodeName)) return false
    const enrolment = enrolmentOf(world, pod)
    this.#notUnderstood(pod)
    if (!enrolment.mesh) this.#leftAlone(pod, enrolment.problems)
    if (!enrolment.mesh || isFinished(pod)) {
      const isStale = status.mesh !== undefined && this.#isBare(spec.nodeName)
      if (isStale) this.#options.annotations.put(pod, undefined)
      return false
    }
    const observation = this.#options.observed.of(pod)
    const state = observation?.state ?? 'not-enrolled'
    if (state === 'not-enrolled') this.#unheardOf(pod)
    else if (state === 'pending') {
      const isLong = this.#nowMs() - observation!.observedAtMs > PENDING_MS
      if (isLong)
        this.#tell(subjectOf(pod), 'EnrolmentPending', 'Enrol', this.#whyPending(pod, observation!.detail))
    } else if (state === 'drifted')
      this.#tell(subjectOf(pod), 'RedirectionChanged', 'Guard', observation!.detail)
    return true
  }

  /** Nobody says anything of a pod that has begun to exist on its node. */
  #unheardOf(pod: KubePod): void {
    if (pod.status.podIPs.length === 0) return
    const nowMs = this.#nowMs()
    if (nowMs - this.#silent.since(pod.metadata.uid, nowMs) < SILENT_MS) return
    const detail = noAgent(pod.spec.nodeName!)
    this.#options.annotations.put(pod, formatPodStatus({ state: 'pending', detail, sinceMs: nowMs }))
  }

  #whyPending(pod: KubePod, detail: string): string {
    const node = pod.spec.nodeName!
    if (detail !== noAgent(node)) return detail
    const agent = this.#agentOn(node)
    return agent
      ? `${detail}: ${agent} runs there, and says nothing of this pod`
      : `${detail}: none runs there`
  }

  #lookAtNode(name: string, pods: number): void {
    const node = this.#options.world.node(name)
    if (!node || !this.#isBare(name)) return
    const subject = { apiVersion: 'v1', kind: 'Node', ...namesOf(node.metadata) } as const
    const note = `no Culvert agent runs here, and ${pods} pods of the mesh do: their new connections wait for one`
    this.#tell(subject, 'NoAgent', 'Enrol', note)
  }

  /** Reports whether no agent has been running on the node for some time. */
  #isBare(node: string): boolean {
    if (this.#agentOn(node) !== undefined) return false
    const nowMs = this.#nowMs()
    return nowMs - this.#bare.since(node, nowMs) >= WITHOUT_AGENT_MS
  }

  /** `namespace/name` of an agent's pod. */
  #agentOn(node: string): string | undefined {
    const { world, agentAccounts } = this.#options
    for (const { metadata, spec, status } of world.podsOnNode(node)) {
      const isAgent = agentAccounts.has(`${metadata.namespace}/${spec.serviceAccountName}`)
      if (isAgent && status.phase === 'Running') return `${metadata.namespace}/${metadata.name}`
    }
    return undefined
  }

  #notUnderstood(pod: KubePod): void {
    this.#misunderstood(subjectOf(pod), wishes(pod.metadata).problems)
  }

  #misunderstood(subject: Subject, problems: readonly string[]): void {
    if (problems.length > 0) this.#tell(subject, 'AnnotationIgnored', 'Enrol', problems.join('; '))
  }

  /** A pod that was asked into the mesh and is another one's. */
  #leftAlone(pod: KubePod, problems: readonly string[]): void {
    const { metadata, spec } = pod
    const namespace = this.#options.world.namespace(metadata.namespace ?? '')
    const other = otherMeshOf({ ...metadata, ...spec }, namespace?.metadata)
    if (other !== undefined && problems.includes(other))
      this.#tell(subjectOf(pod), 'OtherMesh', 'Enrol', other)
  }

  #tell(regarding: Subject, reason: string, action: string, note: string): void {
    const fault: Occurrence = { regarding, reason, action, note: note === '' ? 'for no known reason' : note }
    this.#faults.tell(fault, this.#nowMs())
  }
}

function noAgent(node: string): string {
  return `no agent reports from node ${node}`
}

export function subjectOf({ metadata }: KubePod): Subject {
  return { apiVersion: 'v1', kind: 'Pod', namespace: metadata.namespace ?? '', ...namesOf(metadata) }
}

function namesOf({ name, uid }: KubePod['metadata']): { name: string; uid: string } {
  return { name, uid }
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}
