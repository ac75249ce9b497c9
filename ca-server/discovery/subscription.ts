/**
 * What one stream wants of one type, and how far it has got. Two ways of wanting exist (xDS protocol, "delta"):
 * everything (the wildcard), or resources by name or alias. A subscription takes from its set only when it is
 * asked to, and at most so many bytes: a client that does not read costs nothing but this object.
 */
import type { DeltaDiscoveryRequest } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { CulvertError } from '../../lib/errors.ts'
import type { Follower, Resource, ResourceSet } from './resource-set.ts'

/** Resources and removed names that fit into one response. */
export interface Portion {
  readonly resources: readonly Resource[]
  readonly removed: readonly string[]
}

export interface SubscriptionOptions {
  /** Content of one portion, before the last resource is added. */
  readonly maxBytes: number
  /** What one who asks by name is given unasked, by any key that a set looks up. */
  readonly always?: readonly string[]
  /** Told when the client lags so far behind that it has to start over. */
  readonly expired: () => void
}

/** What a resource's wrapping adds to it on the wire, at most: name, version, aliases, type URL, lengths. */
const WRAPPING_BYTES = 256
const MAX_NAMES = 50_000
const MAX_NAME_CHARS = 1024
const WILDCARD = '*'

export class Subscription implements Follower {
  readonly set: ResourceSet
  readonly #options: SubscriptionOptions
  #revision = 0
  #isWildcard = false
  #isAnswered = false
  /** Versions that a returning client said it still has; empty once each has been confirmed, replaced or removed. */
  #had: Map<string, string>
  /** Removals up to here are none to a client that came afterwards. */
  readonly #startRevision: number
  /** Names still to be answered for; true when the client is to be given them whatever it has. */
  readonly #asked = new Map<string, boolean>()
  readonly #names = new Set<string>()
  /** By name: what a client that asks by name has, with its version. */
  readonly #has = new Map<string, string>()

  /** From the first request of a type. Throws `INPUT` when it asks for too much. */
  constructor(set: ResourceSet, first: DeltaDiscoveryRequest, options: SubscriptionOptions) {
    this.set = set
    this.#options = options
    this.#isWildcard =
      first.resourceNamesSubscribe.length === 0 || first.resourceNamesSubscribe.includes(WILDCARD)
    this.#had = new Map(Object.entries(first.initialResourceVersions))
    this.#startRevision = set.revision
    this.update(first)
    if (!this.#isWildcard) this.#resume()
    for (const name of this.#asked.keys()) this.#asked.set(name, false) // its initial versions count
    set.follow(this)
  }

  get revision(): number {
    return this.#revision
  }

  get isWildcard(): boolean {
    return this.#isWildcard
  }

  expire(): void {
    this.#options.expired()
  }

  close(): void {
    this.set.unfollow(this)
  }

  /** Takes what a request changes about the names wanted. Throws `INPUT` when they become too many. */
  update(request: DeltaDiscoveryRequest): void {
    for (const name of request.resourceNamesSubscribe) {
      if (name === WILDCARD) this.#wantEverything()
      else this.#want(name)
    }
    for (const name of request.resourceNamesUnsubscribe) {
      if (name === WILDCARD) this.#isWildcard = false
      this.#names.delete(name)
      this.#asked.delete(name)
    }
  }

  /** The next portion, or undefined when there is nothing to say. The first one comes even if it is empty. */
  take(): Portion | undefined {
    const hasNews = this.#revision < this.set.revision || this.#asked.size > 0
    if (this.#isAnswered && !hasNews) return undefined
    const portion = this.#isWildcard ? this.#takeChanges() : this.#takeNamed()
    const isEmpty = portion.resources.length === 0 && portion.removed.length === 0
    if (isEmpty && this.#isAnswered) return undefined
    this.#isAnswered = true
    return portion
  }

  /** One who asks by name and comes back names what it has instead of what it wants. */
  #resume(): void {
    for (const [name, version] of this.#had) {
      this.#want(name)
      if (this.set.get(name)) this.#has.set(name, version)
    }
    this.#had.clear()
  }

  #want(name: string): void {
    if (name.length > MAX_NAME_CHARS || this.#names.size >= MAX_NAMES)
      throw new CulvertError('INPUT', `more than ${MAX_NAMES} names are asked for, or one is too long`)
    this.#names.add(name)
    this.#asked.set(name, true)
  }

  #wantEverything(): void {
    if (this.#isWildcard) return
    this.#isWildcard = true
    this.#revision = 0
    this.#had = new Map(this.#has)
    this.#has.clear()
  }

  #takeChanges(): Portion {
    const portion = new PortionBuilder(this.#options.maxBytes)
    for (const [name, isForced] of this.#asked) {
      if (portion.isFull) return portion
      this.#asked.delete(name)
      if (!isForced) continue
      const found = [...this.set.lookup(name)].filter(({ name: own, aliases }) =>
        [own, ...aliases].includes(name),
      )
      if (found.length === 0) portion.remove(name)
      for (const resource of found) portion.add(resource)
    }
    if (this.#had.size > 0)
      for (const name of this.#had.keys())
        if (!this.set.get(name)) {
          if (portion.isFull) return portion
          this.#had.delete(name)
          portion.remove(name)
        }
    for (const { revision, name, resource } of this.set.since(this.#revision)) {
      if (portion.isFull) return portion
      this.#revision = revision
      const had = this.#had.get(name)
      this.#had.delete(name)
      if (!resource) {
        if (revision > this.#startRevision) portion.remove(name)
      } else if (had !== resource.version) portion.add(resource)
    }
    this.#revision = this.set.revision // stale history at the end says nothing
    return portion
  }

  #takeNamed(): Portion {
    const portion = new PortionBuilder(this.#options.maxBytes)
    const upTo = this.set.revision
    const wanted = new Set<string>()
    for (const name of [...(this.#options.always ?? []), ...this.#names]) {
      const found = this.set.lookup(name)
      if (this.#asked.get(name)) {
        for (const resource of found) this.#has.delete(resource.name)
        this.#asked.set(name, false)
      }
      if (found.size === 0 && this.#asked.has(name) && !this.#has.has(name)) portion.remove(name)
      for (const resource of found) {
        wanted.add(resource.name)
        if (this.#has.get(resource.name) === resource.version) continue
        if (portion.isFull) return portion // `revision` stays behind, so there is more to take
        portion.add(resource)
        this.#has.set(resource.name, resource.version)
      }
      this.#asked.delete(name)
    }
    for (const name of this.#has.keys()) {
      if (wanted.has(name)) continue
      this.#has.delete(name)
      // No longer wanted is no news; no longer there is.
      if (!this.set.get(name)) portion.remove(name)
    }
    this.#revision = upTo
    return portion
  }
}

class PortionBuilder implements Portion {
  readonly resources: Resource[] = []
  readonly removed: string[] = []
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get isFull(): boolean {
    return this.#bytes >= this.#maxBytes
  }

  add(resource: Resource): void {
    this.resources.push(resource)
    this.#bytes += resource.any.value.length + WRAPPING_BYTES
  }

  remove(name: string): void {
    this.removed.push(name)
    this.#bytes += name.length + 4
  }
}
