/**
 * What the data-plane threads count, by names of their own. Names that end in `_total` arrive as increments and are added
 * up; all others are levels, and the last word of each thread counts. Shown as `culvert_dataplane_<name>`, summed over
 * the threads.
 */

const NAME = /^[a-z][a-z0-9_]{0,63}$/
const MOST_NAMES = 256

export class ThreadCounters {
  readonly #totals = new Map<string, number>()
  readonly #levels = new Map<string, Map<number, number>>()

  /** Names that are not a metric's, numbers that are none, and names beyond the bound are left out. */
  take(thread: number, values: Readonly<Record<string, number>>): void {
    for (const [name, value] of Object.entries(values)) {
      if (!NAME.test(name) || !Number.isFinite(value)) continue
      const isNew = !this.#totals.has(name) && !this.#levels.has(name)
      if (isNew && this.#totals.size + this.#levels.size >= MOST_NAMES) continue
      if (name.endsWith('_total')) {
        this.#totals.set(name, (this.#totals.get(name) ?? 0) + Math.max(0, value))
      } else {
        const levels = this.#levels.get(name) ?? new Map<number, number>()
        levels.set(thread, value)
        this.#levels.set(name, levels)
      }
    }
  }

  /** A thread's levels no longer hold; what it added to totals stays. */
  threadGone(thread: number): void {
    for (const levels of this.#levels.values()) levels.delete(thread)
  }

  /** In the Prometheus text format. */
  text(): string {
    const lines: string[] = []
    for (const [name, total] of this.#totals) lines.push(...metric(name, 'counter', total))
    for (const [name, levels] of this.#levels) {
      const sum = [...levels.values()].reduce((sum, level) => sum + level, 0)
      lines.push(...metric(name, 'gauge', sum))
    }
    return lines.length > 0 ? `${lines.join('\n')}\n` : ''
  }
}

function metric(name: string, type: 'counter' | 'gauge', value: number): string[] {
  const full = `culvert_dataplane_${name}`
  return [`# HELP ${full} Counted by the data-plane threads`, `# TYPE ${full} ${type}`, `${full} ${value}`]
}
