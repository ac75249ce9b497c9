/** Objects that could not be read: each version of each is told of once. */
import type { Logger } from '../../lib/log.ts'
import { printable } from '../../lib/printable.ts'

const MAX_REMEMBERED = 1000
const MAX_PROBLEMS = 5

export class Unreadable {
  readonly #log: Logger
  /** By key: the version that was told of. */
  readonly #told = new Map<string, string>()

  constructor(log: Logger) {
    this.#log = log
  }

  /** How many are remembered. */
  get size(): number {
    return this.#told.size
  }

  tell(key: string, resourceVersion: string, problems: readonly string[]): void {
    if (this.#told.get(key) === resourceVersion) return
    this.forget(key)
    if (this.#told.size >= MAX_REMEMBERED) this.forget(this.#told.keys().next().value!)
    this.#told.set(key, resourceVersion)
    const shown = problems.slice(0, MAX_PROBLEMS).map(problem => printable(problem, 300))
    this.#log.warn(
      { object: printable(key, 300), resource_version: printable(resourceVersion), problems: shown },
      'object not readable, its last good state stays',
    )
  }

  /** It is readable now, or gone. */
  forget(key: string): void {
    this.#told.delete(key)
  }

  keepOnly(keys: ReadonlySet<string>): void {
    for (const key of this.#told.keys()) if (!keys.has(key)) this.#told.delete(key)
  }
}
