/** What fits into one response: resources and removed names, gathered until there is enough. */
import type { Resource } from './resource-set.ts'

export interface Portion {
  readonly resources: readonly Resource[]
  readonly removed: readonly string[]
}

/** What a resource's wrapping adds to it on the wire, at most: name, version, aliases, type URL, lengths. */
const WRAPPING_BYTES = 256

export class PortionBuilder implements Portion {
  readonly resources: Resource[] = []
  readonly removed: string[] = []
  readonly #maxBytes: number
  #bytes = 0

  /** @param maxBytes of content, before the last resource is added */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get isFull(): boolean {
    return this.#bytes >= this.#maxBytes
  }

  get isEmpty(): boolean {
    return this.resources.length === 0 && this.removed.length === 0
  }

  add(resource: Resource): void {
    this.resources.push(resource)
    this.#bytes += resource.content.length + WRAPPING_BYTES
  }

  /** Adds a resource under another of its names. */
  addAs(name: string, resource: Resource): void {
    this.add({ ...resource, name, aliases: [resource.name] })
  }

  remove(name: string): void {
    this.removed.push(name)
    this.#bytes += name.length + 4
  }
}
