/** The pods of this node: what the source tells, joined with what the mesh says of their enrolment. */
import { errorText } from '../../lib/errors.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import { PodLife, type LifeParts, type LifeStatus } from './pod-life.ts'
import type { LocalPod, PodEvents } from './source.ts'

export interface PodsParts extends LifeParts {
  /** The pod's enrolment; undefined until its namespace is known. */
  enrolmentOf(pod: LocalPod): Enrolment | undefined
}

export interface PodReport extends LifeStatus {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  readonly serviceAccount: string
  readonly ips: readonly string[]
  readonly netns: string
}

export class Pods implements PodEvents {
  readonly #parts: PodsParts
  readonly #lives = new Map<string, PodLife>()
  readonly #onSynced: () => void
  #isSynced = false

  constructor(parts: PodsParts, onSynced: () => void) {
    this.#parts = parts
    this.#onSynced = onSynced
  }

  async podSeen(pod: LocalPod): Promise<void> {
    let life = this.#lives.get(pod.uid)
    if (!life) {
      const isAdopted = this.#parts.keeper.holds(pod.uid)
      life = new PodLife(pod, this.#parts, isAdopted ? 'adopted' : this.#isSynced ? 'new' : 'running')
      this.#lives.set(pod.uid, life)
    }
    const wasTerminating = life.pod.terminating
    life.pod = pod
    if (pod.terminating && !wasTerminating) this.#parts.threads.tell({ type: 'goaway', podUid: pod.uid })
    await life.want(this.#parts.enrolmentOf(pod))
  }

  async podGone(uid: string): Promise<void> {
    const life = this.#lives.get(uid)
    this.#lives.delete(uid)
    await life?.end()
  }

  async synced(uids: ReadonlySet<string>): Promise<void> {
    for (const uid of this.#lives.keys()) if (!uids.has(uid)) await this.podGone(uid)
    this.#parts.keeper.prune(uids)
    this.#isSynced = true
    this.#onSynced()
  }

  /** The mesh has news about namespaces: every pod is looked at again. */
  reconsider(): void {
    for (const life of this.#lives.values())
      life
        .want(this.#parts.enrolmentOf(life.pod))
        .catch((err: unknown) =>
          this.#parts.log.error({ err: errorText(err) }, 'pod could not be reconsidered'),
        )
  }

  /** Ends when every pod is as it should be, or as near as can be. */
  async settled(): Promise<void> {
    await Promise.all([...this.#lives.values()].map(life => life.settled))
  }

  get(uid: string): PodLife | undefined {
    return this.#lives.get(uid)
  }

  /** By `namespace/name`, or by name alone when it is unique. */
  find(name: string): PodLife | undefined {
    const found = [...this.#lives.values()].filter(
      ({ pod }) => pod.name === name || `${pod.namespace}/${pod.name}` === name || pod.uid === name,
    )
    return found.length === 1 ? found[0] : undefined
  }

  lives(): Iterable<PodLife> {
    return this.#lives.values()
  }

  list(): PodReport[] {
    return [...this.#lives.values()].map(({ pod, status }) => ({
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      serviceAccount: pod.serviceAccount,
      ips: pod.ips,
      netns: pod.netns,
      ...status,
    }))
  }
}
