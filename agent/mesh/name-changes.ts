/** Names that the server is to be told of with the next request: asked for, or given up. The last word counts. */
import type { WantsLink } from './resource-kind.ts'

/** Keeps a request well below what servers accept. */
const MOST_AT_ONCE = 10_000

export class NameChanges {
  readonly #subscribe = new Set<string>()
  readonly #unsubscribe = new Set<string>()
  #link: WantsLink | undefined

  attach(link: WantsLink): void {
    this.#link = link
  }

  ask(name: string): void {
    this.#unsubscribe.delete(name)
    this.#subscribe.add(name)
    this.#link?.ask()
  }

  giveUp(name: string): void {
    this.#subscribe.delete(name)
    this.#unsubscribe.add(name)
    this.#link?.ask()
  }

  /** What was held under the name is not any more. */
  forget(name: string): void {
    this.#link?.forget(name)
  }

  take(): { subscribe: string[]; unsubscribe: string[] } | undefined {
    const subscribe = some(this.#subscribe)
    const unsubscribe = some(this.#unsubscribe)
    if (subscribe.length === 0 && unsubscribe.length === 0) return undefined
    if (this.#subscribe.size > 0 || this.#unsubscribe.size > 0) this.#link?.ask()
    return { subscribe, unsubscribe }
  }

  /** A stream begins, with everything in its first request. */
  clear(): void {
    this.#subscribe.clear()
    this.#unsubscribe.clear()
  }
}

function some(names: Set<string>): string[] {
  const taken: string[] = []
  for (const name of names) {
    if (taken.length >= MOST_AT_ONCE) break
    taken.push(name)
    names.delete(name)
  }
  return taken
}
