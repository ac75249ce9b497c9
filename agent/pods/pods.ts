/** The pods of this node: what the source tells, joined with what the mesh says of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import type { LifeStatus } from './life-state.ts'
import { openPlaintextOf, type OpenPlaintext } from './open-plaintext.ts'
import type { LifeParts } from './life-parts.ts'
import { PodLife } from './pod-life.ts'
import type { LocalPod, Patience, PodEvents, Safety } from './source.ts'

export interface PodsParts extends LifeParts {
  /** The pod's enrolment; undefined until its namespace is known. */
  enrolmentOf(pod: LocalPod): Enrolment | undefined
}

export interface PodReport extends LifeStatus {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** Absent until it is known. */
  readonly serviceAccount?: string | undefined
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
    if (life) life.told(pod)
    else {
      const isAdopted = this.#parts.keeper.holds(pod.uid)
      life = new PodLife(pod, this.#parts, isAdopted ? 'adopted' : this.#isSynced ? 'new' : 'running')
      this.#lives.set(pod.uid, life)
    }
    await life.want(this.#parts.enrolmentOf(pod))
  }

  async podSafe(uid: string, patience: Patience): Promise<Safety> {
    return (await this.#lives.get(uid)?.safe(patience)) ?? 'safe'
  }

  async podGone(uid: string, drainMs = 0): Promise<void> {
    const life = this.#lives.get(uid)
    this.#lives.delete(uid)
    await life?.end(drainMs)
  }

  async synced(uids: ReadonlySet<string>): Promise<void> {
    // Now, and not those that are told of while these end.
    const gone = [...this.#lives.keys()].filter(uid => !uids.has(uid))
    this.#parts.keeper.prune(uids)
    this.#isSynced = true
    this.#onSynced()
    await Promise.all(gone.map(uid => this.podGone(uid)))
  }

  /** The mesh has news about these namespaces: every pod of theirs is looked at again. */
  reconsider(namespaces: ReadonlySet<string>): void {
    for (const life of this.#lives.values())
      if (namespaces.has(life.pod.namespace))
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

  /** The agent stops, its connections have ended: pods that have left the mesh keep nothing of it. Waits so long for that. */
  async clearAway(timeoutMs: number): Promise<void> {
    const over = new AbortController()
    await Promise.race([
      Promise.all([...this.#lives.values()].map(life => life.clearAway())),
      sleep(timeoutMs, undefined, { signal: over.signal }).catch(() => undefined),
    ])
    over.abort()
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

  /** What came to strict pods in plaintext before they were, and is open still. */
  async openPlaintext(): Promise<{ readonly pod: string; readonly connections: readonly OpenPlaintext[] }[]> {
    const strict = [...this.#lives.values()].flatMap(({ strictPod }) => strictPod ?? [])
    return await Promise.all(
      strict.map(async pod => ({
        pod: `${pod.namespace}/${pod.name}`,
        connections: await openPlaintextOf(pod, this.#parts.threads),
      })),
    )
  }

  list(): PodReport[] {
    return [...this.#lives.values()].map(({ pod, serviceAccount, status }) => ({
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      serviceAccount,
      ips: pod.ips,
      netns: pod.netns,
      ...status,
    }))
  }
}
