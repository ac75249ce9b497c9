/**
 * What happened to the node's pods and is told once: connections that were refused, rules that somebody changed. It is
 * gathered for some seconds and bounded, and lost with the agent: logs and metrics have all of it.
 */
import { RefusalCounts, type RefusalCount } from '../worker/refusals.ts'

/** Rules of a pod that were found changed and put right. */
export interface RepairCount {
  readonly podUid: string
  readonly what: string
  /** Programs, as the kernel names them. */
  readonly by: string
  readonly count: number
}

export interface NoticeBatch {
  readonly refusals: readonly RefusalCount[]
  readonly repairs: readonly RepairCount[]
}

const MOST_REFUSALS = 500
const MOST_REPAIRS = 100

export class Notices {
  readonly #gatherMs: number
  readonly #refusals = new RefusalCounts()
  /** By pod: what was found last. */
  #repairs = new Map<string, RepairCount>()
  #firstAtMs = Infinity

  constructor(gatherMs: number) {
    this.#gatherMs = gatherMs
  }

  /** When they should be told; infinite when there are none. */
  get dueAtMs(): number {
    return this.#firstAtMs + this.#gatherMs
  }

  refused(refusals: readonly RefusalCount[], nowMs: number): void {
    for (const refusal of refusals) this.#refusals.add(refusal, MOST_REFUSALS)
    if (refusals.length > 0) this.#firstAtMs = Math.min(this.#firstAtMs, nowMs)
  }

  repaired(repair: RepairCount, nowMs: number): void {
    const before = this.#repairs.get(repair.podUid)
    if (!before && this.#repairs.size >= MOST_REPAIRS) return
    this.#repairs.set(repair.podUid, { ...repair, count: repair.count + (before?.count ?? 0) })
    this.#firstAtMs = Math.min(this.#firstAtMs, nowMs)
  }

  take(): NoticeBatch {
    const repairs = [...this.#repairs.values()]
    this.#repairs = new Map()
    this.#firstAtMs = Infinity
    return { refusals: this.#refusals.take(), repairs }
  }

  /** They could not be told. */
  putBack({ refusals, repairs }: NoticeBatch, nowMs: number): void {
    const later = this.take()
    for (const batch of [{ refusals, repairs }, later]) {
      this.refused(batch.refusals, nowMs)
      for (const repair of batch.repairs) this.repaired(repair, nowMs)
    }
  }
}
