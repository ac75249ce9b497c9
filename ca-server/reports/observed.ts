/**
 * What the agents observed about each pod, as far as they are to be believed:
 *
 * - a node's agent is believed about pods of that node only;
 * - while two agents overlap on a node, the one that started last is believed, and a drained predecessor's late
 *   word is not; when the newest has been silent for long, clocks may have gone back and any word counts again;
 * - a full report takes back what was said about pods that it does not name;
 * - an observation belongs to a pod's uid and goes with it.
 */
import { errorText } from '../../lib/errors.ts'
import type { KubePod } from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'
import { objectKey, type World, type WorldChange } from '../world/world.ts'
import type { Observation, ObservedState, ObservedStore } from './store.ts'

export interface PodStatement {
  readonly podUid: string
  readonly state: ObservedState
  readonly detail: string
  readonly observedAtMs: number
}

export interface AgentReport {
  /** From the token. */
  readonly node: string
  readonly instance: string
  readonly startedAtMs: number
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
  readonly log: Logger
  /** Milliseconds of a clock that never goes back. @default performance.now */
  readonly nowMs?: () => number
}

/** Agents report in full every minute; three minutes of silence mean that the newest one is gone. */
const SILENCE_MS = 180_000
/** An agent may hear of a pod before the world does: such reports wait this long. */
const EARLY_MS = 60_000
const MAX_EARLY = 10_000

interface NodeAgent {
  instance: string
  startedAtMs: number
  heardMs: number
}

export class Observed {
  readonly #world: World
  readonly #store: ObservedStore
  readonly #log: Logger
  readonly #nowMs: () => number
  readonly #byUid = new Map<string, Observation>()
  readonly #agents = new Map<string, NodeAgent>()
  readonly #early = new Map<string, { readonly observation: Observation; readonly atMs: number }>()
  readonly #listeners = new Set<(podKeys: readonly string[]) => void>()
  #isPruned = false

  private constructor(options: ObservedOptions) {
    this.#world = options.world
    this.#store = options.store
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
    const nowMs = observed.#nowMs()
    for (const observation of remembered) {
      observed.#byUid.set(observation.podUid, observation)
      const agent = observed.#agents.get(observation.node)
      const { node, instance, startedAtMs } = observation
      if (!agent || agent.startedAtMs < startedAtMs)
        observed.#agents.set(node, { instance, startedAtMs, heardMs: nowMs })
    }
    options.world.onChange(changes => observed.#worldChanged(changes))
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
    if (!this.#believes(report)) return { believed: false, unknownPods: [] }
    const changed: Observation[] = []
    const unknownPods: string[] = []
    const named = new Set<string>()
    for (const statement of report.pods) {
      named.add(statement.podUid)
      const pod = this.#world.podByUid(statement.podUid)
      if (pod?.spec.nodeName === report.node) {
        changed.push(observationOf(pod, statement, report))
        continue
      }
      unknownPods.push(statement.podUid)
      if (!pod) this.#keepEarly(statement, report)
    }
    if (report.full) changed.push(...this.#takenBack(report, named))
    await this.#take(changed)
    return { believed: true, unknownPods }
  }

  #believes(report: AgentReport): boolean {
    const nowMs = this.#nowMs()
    const newest = this.#agents.get(report.node)
    const isLate =
      newest !== undefined &&
      report.instance !== newest.instance &&
      report.startedAtMs < newest.startedAtMs &&
      nowMs - newest.heardMs < SILENCE_MS
    if (isLate) return false
    const { instance, startedAtMs } = report
    this.#agents.set(report.node, { instance, startedAtMs, heardMs: nowMs })
    return true
  }

  /** What a full report says by leaving it out. */
  #takenBack(report: AgentReport, named: ReadonlySet<string>): Observation[] {
    const changed: Observation[] = []
    for (const pod of this.#world.podsOnNode(report.node)) {
      const before = this.of(pod)
      if (!before || before.state === 'not-enrolled' || named.has(pod.metadata.uid)) continue
      const statement = { podUid: before.podUid, state: 'not-enrolled', detail: '' } as const
      changed.push(observationOf(pod, { ...statement, observedAtMs: Date.now() }, report))
    }
    for (const [uid, { observation }] of this.#early)
      if (observation.node === report.node && !named.has(uid)) this.#early.delete(uid)
    return changed
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

  #keepEarly(statement: PodStatement, report: AgentReport): void {
    this.#early.delete(statement.podUid) // so that the map stays in the order of arrival
    const [oldest] = this.#early.keys()
    if (this.#early.size >= MAX_EARLY) this.#early.delete(oldest!)
    const observation = { ...statement, node: report.node, namespace: '', name: '', ...startOf(report) }
    this.#early.set(statement.podUid, { observation, atMs: this.#nowMs() })
  }

  #worldChanged(changes: readonly WorldChange[]): void {
    const removed: string[] = []
    const arrived: Observation[] = []
    for (const { kind, before, after } of changes) {
      if (kind !== 'Pod') continue
      if (before && before.metadata.uid !== after?.metadata.uid) removed.push(before.metadata.uid)
      if (after && before?.metadata.uid !== after.metadata.uid)
        arrived.push(...this.#earlyFor(after as KubePod))
    }
    if (this.#world.isSynced && !this.#isPruned) {
      this.#isPruned = true
      for (const uid of this.#byUid.keys()) if (!this.#world.podByUid(uid)) removed.push(uid)
    }
    const known = removed.filter(uid => this.#byUid.delete(uid))
    const stored = known.length > 0 ? this.#store.record([], known) : Promise.resolve()
    Promise.all([stored, this.#take(arrived)]).catch((err: unknown) => {
      this.#log.error({ err: errorText(err) }, 'observations not stored')
    })
  }

  #earlyFor(pod: KubePod): Observation[] {
    const early = this.#early.get(pod.metadata.uid)
    if (!early) return []
    this.#early.delete(pod.metadata.uid)
    const { observation, atMs } = early
    if (observation.node !== pod.spec.nodeName || this.#nowMs() - atMs > EARLY_MS) return []
    return [{ ...observation, namespace: pod.metadata.namespace ?? '', name: pod.metadata.name }]
  }

  #tell(podKeys: readonly string[]): void {
    for (const listener of this.#listeners) listener(podKeys)
  }
}

function observationOf(pod: KubePod, statement: PodStatement, report: AgentReport): Observation {
  const { podUid, state, detail, observedAtMs } = statement
  const { namespace = '', name } = pod.metadata
  return { podUid, namespace, name, node: report.node, state, detail, observedAtMs, ...startOf(report) }
}

function startOf({ instance, startedAtMs }: AgentReport): Pick<Observation, 'instance' | 'startedAtMs'> {
  return { instance, startedAtMs }
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
