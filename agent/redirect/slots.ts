/**
 * How many namespaces have their rules written or listed at once: as many as there are processors, for it is work of the
 * processor alone. Repairs and first enrolments wait in lines of their own that are served in turn, so that a node full
 * of new pods does not keep a pod open whose rules were flushed, and a pod whose rules are flushed without end does not
 * keep new ones out.
 */
import { availableParallelism } from 'node:os'

export type Line = 'write' | 'look'

export class Slots {
  readonly #waiting: Record<Line, (() => void)[]> = { write: [], look: [] }
  #free: number
  #last: Line = 'write'

  /** @param count At least one. */
  constructor(count = Math.max(2, availableParallelism())) {
    this.#free = count
  }

  /** Does the work when there is a slot for it. */
  async run<T>(line: Line, work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>(resolve => this.#waiting[line].push(resolve))
    try {
      return await work()
    } finally {
      this.#next()
    }
  }

  #next(): void {
    const other = this.#last === 'write' ? 'look' : 'write'
    const line = this.#waiting[other].length > 0 ? other : this.#last
    const next = this.#waiting[line].shift()
    if (next === undefined) {
      this.#free++
      return
    }
    this.#last = line
    next()
  }
}
