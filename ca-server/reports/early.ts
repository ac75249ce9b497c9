/** What agents said of pods that the world does not know yet: they may hear of a pod first. Kept for a minute. */
import type { Observation } from './store.ts'

const KEPT_MS = 60_000
const MOST = 10_000

export class EarlyWords {
  /** By uid, in the order of arrival. */
  readonly #words = new Map<string, { readonly observation: Observation; readonly atMs: number }>()

  /** Keeps it; of too many the oldest goes. */
  keep(observation: Observation, nowMs: number): void {
    this.#words.delete(observation.podUid)
    if (this.#words.size >= MOST) this.#words.delete(this.#words.keys().next().value!)
    this.#words.set(observation.podUid, { observation, atMs: nowMs })
  }

  /** What was said of a pod that has come, if it is not too old; it is kept no more. */
  take(podUid: string, nowMs: number): Observation | undefined {
    const word = this.#words.get(podUid)
    this.#words.delete(podUid)
    return word && nowMs - word.atMs <= KEPT_MS ? word.observation : undefined
  }

  /** The node's agent has named all of its pods: these. */
  keepOnly(node: string, named: ReadonlySet<string>): void {
    for (const [uid, { observation }] of this.#words)
      if (observation.node === node && !named.has(uid)) this.#words.delete(uid)
  }
}
