/** Connections told of as data-plane threads do: counted in the thread, and reported as sums. */
import type { ConnectionRecord, TrafficReport } from '../../agent/worker/messages.ts'
import { Traffic, type Counted, type TrafficOptions } from '../../agent/worker/traffic.ts'

export class ThreadTraffic {
  readonly #options: TrafficOptions
  readonly #take: (thread: number, report: TrafficReport) => void
  readonly #threads = new Map<number, { readonly traffic: Traffic; readonly open: Map<number, Counted> }>()

  /** `take` gets every report. */
  constructor(take: (thread: number, report: TrafficReport) => void, options: TrafficOptions = {}) {
    this.#take = take
    this.#options = options
  }

  /** A connection was established. Reported at once unless told otherwise. */
  opened(record: ConnectionRecord, thread = 0, isToldNow = true): void {
    const { traffic, open } = this.#of(thread)
    const connection: Counted = { ...record }
    open.set(record.id, connection)
    traffic.opened(connection)
    if (isToldNow) this.tell(thread)
  }

  /** The connection of this number has ended, and looks like this now; it was refused if it never was established. */
  closed(record: ConnectionRecord, thread = 0, isToldNow = true): void {
    const { traffic, open } = this.#of(thread)
    traffic.closed({ ...record, series: open.get(record.id)?.series })
    open.delete(record.id)
    if (isToldNow) this.tell(thread)
  }

  /** Reports what has been counted. */
  tell(thread = 0): void {
    const report = this.#of(thread).traffic.take()
    if (report) this.#take(thread, structuredClone(report))
  }

  letGo(thread = 0): void {
    this.#of(thread).traffic.letGo()
  }

  /** Series that the thread keeps. */
  size(thread = 0): number {
    return this.#of(thread).traffic.size
  }

  #of(thread: number) {
    const present = this.#threads.get(thread)
    if (present) return present
    const made = { traffic: new Traffic(this.#options), open: new Map<number, Counted>() }
    this.#threads.set(thread, made)
    return made
  }
}
