/**
 * What the agents observed about each pod, as far as they are to be believed:
 *
 * - a node's agent is believed about pods of that node only, and of several the newest (`node-agents.ts`);
 * - a full report takes back what was said about pods that it does not name;
 * - an observation belongs to a pod's uid and goes with it;
 * - in a cluster it stands in the pod's annotation, where other replicas find it (`annotation.ts`).
 */
import { errorText } from '../../lib/errors.ts'
import type { KubePod } from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'
import { objectKey, type World, type WorldChange } from '../world/world.ts'
import { annotationFor, observationFrom, type StatusAnnotations } from './annotation.ts'
import { EarlyWords } from './early.ts'
import { NodeAgents, type AgentStart } from './node-agents.ts'
import type { Observation, ObservedState, ObservedStore } from './store.ts'

export interface PodStatement {
  readonly podUid: string
  readonly state: ObservedState
  readonly detail: string
  readonly observedAtMs: number
}

/** The node is from the token. */
export interface AgentReport extends AgentStart {
  readonly full: boolean
  readonly pods: readonly PodStatement[]
}

export interface ReportOutcome {
  /** False: another agent of that node has started since, and nothing was taken. */
  readonly believed: boolean
  /** Uids that are not pods of that node, as far as is known. */
  readonly unknownPods: readonly string[]
}

export interface ObservedOptions {
  readonly world: World
  readonly store: ObservedStore
  /** Where pods have their status in an annotation. */
  readonly annotations?: StatusAnnotations | undefined
  readonly log: Logger
  /** Milliseconds of a clock that never goes back. @default performance.now */
  readonly nowMs?: () => number
}

export class Observed {
  readonly #world: World
  readonly #store: ObservedStore
  readonly #annotations: StatusAnnotations | undefined
  readonly #log: Logger
  readonly #nowMs: () => number
  readonly #byUid = new Map<string, Observation>()
  readonly #agents = new NodeAgents()
  readonly #early = new EarlyWords()
  readonly #listeners = new Set<(podKeys: readonly string[]) => void>()
  #isPruned = false

  private constructor(options: ObservedOptions) {
    this.#world = options.world
    this.#store = options.store
    this.#annotations = options.annotations
    this.#log = options.log
    this.#nowMs = options.nowMs ?? (() => performance.now())
  }

  /** Starts with what the store remembers; a store that cannot be read is logged and counts as empty. */
  static async open(options: ObservedOptions): Promise<Observed> {
    const observed = new Observed(options)
    const remembered = await options.store.load().catch((err: unknown) => {
      options.log.error({ err: errorText(err) }, 'observations lost, pods count as plain until agents report')
      return []
    })
    for (const observation of remembered) {
      observed.#byUid.set(observation.podUid, observation)
      observed.#agents.remember(observation, observed.#nowMs())
    }
    options.world.onChange(changes => observed.#worldChanged(changes))
    options.annotations?.onSettled(podUid => observed.#settled(podUid))
    return observed
  }

  /** What is known of a pod; undefined when nothing was ever said about this uid. */
  of(pod: KubePod): Observation | undefined {
    return this.#byUid.get(pod.metadata.uid)
  }

  /** Calls the listener with the keys (`namespace/name`) of pods whose observation has changed. */
  onChange(listener: (podKeys: readonly string[]) => void): void {
    this.#listeners.add(listener)
  }

  /** How many pods are in each state. */
  counts(): ReadonlyMap<ObservedState, number> {
    const counts = new Map<ObservedState, number>()
    for (const { state } of this.#byUid.values()) counts.set(state, (counts.get(state) ?? 0) + 1)
    return counts
  }

  /** Takes a report. Ends when what it changed is durable; listeners have heard of it before. */
  async report(report: AgentReport): Promise<ReportOutcome> {
    if (!this.#agents.believe(report, this.#nowMs())) return { believed: false, unknownPods: [] }
    const said: [KubePod, Observation][] = []
    const unknownPods: string[] = []
    const named = new Set<string>()
    for (const statement of report.pods) {
      named.add(statement.podUid)
      const pod = this.#world.podByUid(statement.podUid)
      if (pod?.spec.nodeName === report.node) {
        said.push([pod, observationOf(pod.metadata, statement, report)])
        continue
      }
      unknownPods.push(statement.podUid)
      if (!pod) this.#early.keep(observationOf({ name: '' }, statement, report), this.#nowMs())
    }
    if (report.full) said.push(...this.#takenBack(report, named))
    for (const [pod, observation] of said) this.#annotate(pod, observation)
    await this.#take(said.map(([, observation]) => observation))
    return { believed: true, unknownPods }
  }

  /** What a full report says by leaving it out. */
  #takenBack(report: AgentReport, named: ReadonlySet<string>): [KubePod, Observation][] {
    const said: [KubePod, Observation][] = []
    for (const pod of this.#world.podsOnNode(report.node)) {
      const { uid } = pod.metadata
      const isKnown = (this.of(pod)?.state ?? 'not-enrolled') !== 'not-enrolled'
      if (named.has(uid) || !(isKnown || (this.#annotations && pod.status.mesh !== undefined))) continue
      const statement = { podUid: uid, state: 'not-enrolled', detail: '', observedAtMs: Date.now() } as const
      said.push([pod, observationOf(pod.metadata, statement, report)])
    }
    this.#early.keepOnly(report.node, named)
    return said
  }

  /** Has the pod's annotation say what its agent does. Those that are leaving are left alone. */
  #annotate(pod: KubePod, observation: Observation): void {
    const text = annotationFor(pod, observation)
    if (text === undefined && pod.metadata.deletionTimestamp !== undefined) return
    // What stands there may be of another pod that this one was copied from: that must not wait.
    this.#annotations?.put(pod, text, observation.state === 'pending' && pod.status.mesh === undefined)
  }

  async #take(observations: readonly Observation[]): Promise<void> {
    const changed = observations.filter(
      observation => !isSame(this.#byUid.get(observation.podUid), observation),
    )
    if (changed.length === 0) return
    for (const observation of changed) {
      const { podUid, state, detail, node, namespace, name } = observation
      const before = this.#byUid.get(podUid)?.state
      this.#byUid.set(podUid, observation)
      if (before !== state)
        this.#log.info(
          { pod: `${namespace}/${name}`, pod_uid: podUid, node, state, before, detail },
          'pod observed',
        )
    }
    this.#tell(changed.map(({ namespace, name }) => objectKey({ namespace, name })))
    await this.#store.record(changed, [])
  }

  #worldChanged(changes: readonly WorldChange[]): void {
    const removed: string[] = []
    const arrived: Observation[] = []
    for (const { kind, before, after } of changes) {
      if (kind !== 'Pod') continue
      const isNew = before?.metadata.uid !== after?.metadata.uid
      if (before && isNew) removed.push(before.metadata.uid)
      if (!after) continue
      const early = isNew ? this.#earlyFor(after as KubePod) : undefined
      const found = early ?? this.#annotated(isNew ? undefined : (before as KubePod), after as KubePod)
      if (found) arrived.push(found)
    }
    if (this.#world.isSynced && !this.#isPruned) {
      this.#isPruned = true
      for (const uid of this.#byUid.keys()) if (!this.#world.podByUid(uid)) removed.push(uid)
    }
    for (const uid of removed) this.#annotations?.forget(uid)
    const known = removed.filter(uid => this.#byUid.delete(uid))
    const stored = known.length > 0 ? this.#store.record([], known) : Promise.resolve()
    Promise.all([stored, this.#take(arrived)]).catch((err: unknown) => this.#notStored(err))
  }

  #earlyFor(pod: KubePod): Observation | undefined {
    const early = this.#early.take(pod.metadata.uid, this.#nowMs())
    // Neither may have a node: one that nobody has spoken of, and one that is not scheduled yet.
    if (!early || early.node !== pod.spec.nodeName) return undefined
    const { namespace = '', name } = pod.metadata
    const observation = { ...early, namespace, name }
    this.#annotate(pod, observation)
    return observation
  }

  /** What the annotation of a pod says that it did not say before. */
  #annotated(before: KubePod | undefined, pod: KubePod): Observation | undefined {
    if (!this.#annotations || this.#annotations.isOutdated(pod)) return undefined
    return before?.status.mesh === pod.status.mesh ? undefined : this.#read(pod)
  }

  #read(pod: KubePod): Observation | undefined {
    const held = this.of(pod)
    const isFirstHand =
      held !== undefined && held.instance !== '' && this.#agents.isSpeaking(held.node, this.#nowMs())
    return observationFrom(pod, held, isFirstHand, Date.now())
  }

  /** Somebody may have written after us, and we have heard of that meanwhile. */
  #settled(podUid: string): void {
    const pod = this.#world.podByUid(podUid)
    const found = pod && !this.#annotations!.isOutdated(pod) ? this.#read(pod) : undefined
    if (found) this.#take([found]).catch((err: unknown) => this.#notStored(err))
  }

  #notStored(err: unknown): void {
    this.#log.error({ err: errorText(err) }, 'observations not stored')
  }

  #tell(podKeys: readonly string[]): void {
    for (const listener of this.#listeners) listener(podKeys)
  }
}

/** Nobody observes what is still to come: an agent whose clock is ahead would never be wrong again. */
function observationOf(
  { namespace = '', name }: Pick<KubePod['metadata'], 'namespace' | 'name'>,
  { podUid, state, detail, observedAtMs }: PodStatement,
  { node, instance, startedAtMs }: AgentReport,
): Observation {
  const seenAtMs = Math.min(observedAtMs, Date.now())
  return { podUid, namespace, name, node, state, detail, observedAtMs: seenAtMs, instance, startedAtMs }
}

/** Reports whether `after` tells nothing new: the time alone is not worth a write. */
function isSame(before: Observation | undefined, after: Observation): boolean {
  return (
    before !== undefined &&
    before.state === after.state &&
    before.detail === after.detail &&
    before.instance === after.instance &&
    before.node === after.node
  )
}
