/**
 * What is wrong for some time and would be told at every look: it is told when it is new, when it has changed, and
 * once in a while, since Events live only an hour.
 */
import type { EventRecorder, Occurrence } from './event-recorder.ts'

const AGAIN_AFTER_MS = 1_800_000

interface Told {
  note: string
  atMs: number
  round: number
}

export class StandingFaults {
  readonly #recorder: Pick<EventRecorder, 'tell'>
  /** By the object's uid and the reason. */
  readonly #told = new Map<string, Told>()
  #round = 0

  constructor(recorder: Pick<EventRecorder, 'tell'>) {
    this.#recorder = recorder
  }

  /** It is so now. */
  tell(fault: Occurrence, nowMs: number): void {
    const key = `${fault.regarding.uid} ${fault.reason}`
    const told = this.#told.get(key)
    if (told) told.round = this.#round
    if (told?.note === fault.note && nowMs - told.atMs < AGAIN_AFTER_MS) return
    this.#told.set(key, { note: fault.note, atMs: nowMs, round: this.#round })
    this.#recorder.tell(fault)
  }

  /** Everything has been looked at: what was not told since the last time is so no more. */
  endRound(): void {
    for (const [key, { round }] of this.#told) if (round !== this.#round) this.#told.delete(key)
    this.#round++
  }

  clear(): void {
    this.#told.clear()
  }
}
