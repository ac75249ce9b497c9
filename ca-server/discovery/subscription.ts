/**
 * What one stream wants of one type, and how far it has got. Two ways of wanting exist (xDS protocol, "delta"):
 * everything (the wildcard), or resources by name or alias. A subscription takes from its set only when it is
 * asked to, and at most so many bytes: a client that does not read costs nothing but this object.
 */
import type { DeltaDiscoveryRequest } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { Named } from './named.ts'
import { PortionBuilder, type Portion } from './portion.ts'
import type { Follower, ResourceSet } from './resource-set.ts'

export interface SubscriptionOptions {
  /** Content of one portion, before the last resource is added. */
  readonly maxBytes: number
  /** What one who asks by name is given unasked, by any key that a set looks up. */
  readonly always?: readonly string[]
  /** Told when the client lags so far behind that it has to start over. */
  readonly expired: () => void
}

const WILDCARD = '*'

export class Subscription implements Follower {
  readonly set: ResourceSet
  readonly #options: SubscriptionOptions
  readonly #named: Named
  #revision = 0
  #isWildcard = false
  #isAnswered = false
  /** Versions that a returning client said it still has; empty once each has been confirmed, replaced or removed. */
  #had: Map<string, string>
  /** Removals up to here are none to a client that came afterwards. */
  readonly #startRevision: number

  /** From the first request of a type. Throws `INPUT` when it asks for too much. */
  constructor(set: ResourceSet, first: DeltaDiscoveryRequest, options: SubscriptionOptions) {
    this.set = set
    this.#options = options
    this.#named = new Named(set, options.always ?? [])
    const { resourceNamesSubscribe: names, initialResourceVersions } = first
    this.#isWildcard = names.length === 0 || names.includes(WILDCARD)
    this.#had = new Map(Object.entries(initialResourceVersions))
    this.#startRevision = set.revision
    this.#update(first, false) // its initial versions count
    if (!this.#isWildcard) this.#askByName(this.#had)
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
    const wasWildcard = this.#isWildcard
    this.#update(request, true)
    if (wasWildcard && !this.#isWildcard) this.#askByName(new Map())
  }

  /** The next portion, or undefined when there is nothing to say. The first one comes even if it is empty. */
  take(): Portion | undefined {
    const hasNews = this.#revision < this.set.revision || this.#named.isAsked
    if (this.#isAnswered && !hasNews) return undefined
    const portion = new PortionBuilder(this.#options.maxBytes)
    if (this.#isWildcard) this.#takeChanges(portion)
    else this.#takeNamed(portion)
    if (portion.isEmpty && this.#isAnswered) return undefined
    this.#isAnswered = true
    return portion
  }

  #update(
    { resourceNamesSubscribe, resourceNamesUnsubscribe }: DeltaDiscoveryRequest,
    isForced: boolean,
  ): void {
    for (const name of resourceNamesSubscribe) {
      if (name === WILDCARD) this.#wantEverything()
      else this.#named.want(name, isForced)
    }
    for (const name of resourceNamesUnsubscribe) {
      if (name === WILDCARD) this.#isWildcard = false
      else this.#named.unwant(name)
    }
  }

  /** From here on changes are told, and what is there is told where it is asked for. */
  #askByName(versions: ReadonlyMap<string, string>): void {
    this.#named.resume(versions)
    this.#had.clear()
    this.#revision = this.set.revision
  }

  #wantEverything(): void {
    if (this.#isWildcard) return
    this.#isWildcard = true
    this.#revision = 0
    this.#had = new Map(this.#named.has)
    this.#named.rest()
  }

  #takeChanges(portion: PortionBuilder): void {
    if (!this.#named.repeat(portion)) return
    for (const name of this.#had.keys())
      if (!this.set.get(name)) {
        if (portion.isFull) return
        this.#had.delete(name)
        portion.remove(name)
      }
    for (const { revision, name, resource } of this.set.since(this.#revision)) {
      if (portion.isFull) return
      this.#revision = revision
      const had = this.#had.get(name)
      this.#had.delete(name)
      if (!resource) {
        if (revision > this.#startRevision) portion.remove(name)
      } else if (had !== resource.version) portion.add(resource)
    }
    this.#revision = this.set.revision // stale history at the end says nothing
  }

  #takeNamed(portion: PortionBuilder): void {
    if (!this.#named.answer(portion)) return
    for (const { revision, name } of this.set.since(this.#revision)) {
      if (portion.isFull || !this.#named.follow(name, portion)) return
      this.#revision = revision
    }
    this.#revision = this.set.revision
  }
}
