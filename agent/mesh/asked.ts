/**
 * What has been answered about since the last time all answers were called back. In a big cluster something
 * changes every moment, and almost never something that a pod of this node has asked about: only then are kept
 * answers worth throwing away. Bounded: too many questions count as having asked about everything.
 */
import type { Changes } from './changes.ts'

const MAX_REMEMBERED = 65_536

export class Asked {
  readonly #keys = new Set<string>()
  #everything = false

  /** An address, or the key of a service: the two never look alike. */
  add(key: string): void {
    if (this.#everything) return
    this.#keys.add(key)
    this.#everything = this.#keys.size > MAX_REMEMBERED
  }

  isTouchedBy({ ips, services, broad }: Changes): boolean {
    if (broad || this.#everything) return true
    return intersect(this.#keys, ips) || intersect(this.#keys, services)
  }

  clear(): void {
    this.#keys.clear()
    this.#everything = false
  }
}

function intersect(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const [small, big] = a.size < b.size ? [a, b] : [b, a]
  for (const key of small) if (big.has(key)) return true
  return false
}
