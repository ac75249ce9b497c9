/** What a run has measured so far, and what it could not: for each arm, metric and round one or the other. */
import { errorText } from '../lib/errors.ts'
import { withoutPlace } from './machine.ts'
import type { Value } from './measure/measurement.ts'
import type { ArmName, Gap, MetricInfo, Sample } from './model.ts'

/** Told what goes on. */
export interface Progress {
  /** Before the first turn. */
  note(text: string): void
  turn(round: number, arm: ArmName): void
  measuring(what: string): void
  measured(metric: MetricInfo, value: number): void
  gap(gap: Gap): void
  turnEnded(): void
}

/** Whose turn it is. */
export interface Turn {
  readonly arm: ArmName
  readonly round: number
}

export class Recorder {
  /** Those that were asked for. */
  readonly metrics: readonly MetricInfo[]
  readonly samples: Sample[] = []
  readonly gaps: Gap[] = []
  readonly #progress: Progress
  #failures = 0

  constructor(metrics: readonly MetricInfo[], progress: Progress) {
    this.metrics = metrics
    this.#progress = progress
  }

  /** How often something went wrong. Gaps that are an arm's nature are not counted. */
  get failures(): number {
    return this.#failures
  }

  /** Keeps those of the values that were asked for. */
  record(turn: Turn, values: Readonly<Record<string, Value>>): void {
    const at = new Date().toISOString()
    let hasFailed = false
    for (const metric of this.metrics) {
      const value = values[metric.id]
      if (typeof value === 'number') {
        this.samples.push({ ...turn, metric: metric.id, value, at })
        this.#progress.measured(metric, value)
      } else if (value) {
        hasFailed ||= !value.isKnown
        this.#gap(turn, metric, value.why)
      }
    }
    if (hasFailed) this.#failures++
  }

  /** Something that should have given these metrics has failed: what it has not given is a gap. */
  failed(turn: Turn, metrics: readonly MetricInfo[], err: unknown): void {
    this.#failures++
    const why = errorText(err)
    const ids = new Set(metrics.map(({ id }) => id))
    const lost = this.metrics.filter(
      metric => ids.has(metric.id) && metric.missing === undefined && !this.#has(turn, metric),
    )
    for (const metric of lost) this.#gap(turn, metric, why)
    // It had given everything by then; that it failed is to be known all the same.
    if (lost.length === 0) this.#progress.note(`${turn.arm}, round ${turn.round}: ${why}`)
  }

  #has({ arm, round }: Turn, { id }: MetricInfo): boolean {
    return [...this.samples, ...this.gaps].some(
      each => each.arm === arm && each.round === round && each.metric === id,
    )
  }

  #gap(turn: Turn, { id }: MetricInfo, why: string): void {
    const gap: Gap = { ...turn, metric: id, why: withoutPlace(why) }
    this.gaps.push(gap)
    this.#progress.gap(gap)
  }
}
