/**
 * What the data-plane threads count, by names of their own, with or without labels: `name` or `name{label="value",…}`.
 * Names that end in `_total` arrive as increments and are added up; all others are levels, and the last word of each
 * thread counts. Shown as `culvert_dataplane_<name>`, summed over the threads.
 */

const SERIES =
  /^([a-z][a-z0-9_]{0,63})(\{[a-z_]{1,32}="[\w.-]{0,64}"(?:,[a-z_]{1,32}="[\w.-]{0,64}"){0,7}\})?$/
const MOST_SERIES = 256

/** One label set of a metric: the sum so far, or what each thread said last. */
interface Series {
  total: number
  readonly levels: Map<number, number>
}

export class ThreadCounters {
  /** By metric, then by labels as they are written. */
  readonly #metrics = new Map<string, Map<string, Series>>()
  #count = 0

  /** Names that are not a metric's, numbers that are none, and series beyond the bound are left out. */
  take(thread: number, values: Readonly<Record<string, number>>): void {
    for (const [name, value] of Object.entries(values)) {
      const parts = SERIES.exec(name)
      if (!parts || !Number.isFinite(value)) continue
      const series = this.#seriesOf(parts[1]!, parts[2] ?? '')
      if (!series) continue
      if (isTotal(parts[1]!)) series.total += Math.max(0, value)
      else series.levels.set(thread, value)
    }
  }

  /** A thread's levels no longer hold; what it added to totals stays. */
  threadGone(thread: number): void {
    for (const all of this.#metrics.values()) for (const { levels } of all.values()) levels.delete(thread)
  }

  /** In the Prometheus text format. */
  text(): string {
    const lines: string[] = []
    for (const [name, all] of this.#metrics) {
      const full = `culvert_dataplane_${name}`
      lines.push(`# HELP ${full} Counted by the data-plane threads`)
      lines.push(`# TYPE ${full} ${isTotal(name) ? 'counter' : 'gauge'}`)
      for (const [labels, series] of all) lines.push(`${full}${labels} ${valueOf(series)}`)
    }
    return lines.length > 0 ? `${lines.join('\n')}\n` : ''
  }

  #seriesOf(name: string, labels: string): Series | undefined {
    const present = this.#metrics.get(name)?.get(labels)
    if (present) return present
    if (this.#count >= MOST_SERIES) return undefined
    this.#count++
    const all = this.#metrics.get(name) ?? new Map<string, Series>()
    this.#metrics.set(name, all)
    const series: Series = { total: 0, levels: new Map() }
    all.set(labels, series)
    return series
  }
}

function isTotal(name: string): boolean {
  return name.endsWith('_total')
}

function valueOf({ total, levels }: Series): number {
  let sum = total
  for (const level of levels.values()) sum += level
  return sum
}
