/**
 * All resources of one type, each encoded once, with the history that delta streams need: which names changed
 * after a given revision. Versions are hashes of the contents, so that a client which comes back after a restart
 * of the server, or to another replica, is sent only what differs.
 */
import { hash } from 'node:crypto'
import { Interner } from '../../lib/interner.ts'
import { MultiMap } from '../world/multi-map.ts'

export interface Resource {
  readonly name: string
  readonly version: string
  /** Rises with each change of any resource of the type. */
  readonly revision: number
  /** Other names that it can be asked for by: `<network>/<ip>`. */
  readonly aliases: readonly string[]
  /** Names of resources that one who asks for them wants this one with: a workload's services. */
  readonly groups: readonly string[]
  /** Its bytes, one for each character: a typed array of its own would take 300 bytes more. */
  readonly content: string
}

export interface ResourceContent {
  readonly bytes: Uint8Array
  readonly aliases?: readonly string[]
  readonly groups?: readonly string[]
}

/** One who follows the set. While it lags, removals that it has not heard of are remembered. */
export interface Follower {
  /** Everything up to here has been taken. */
  readonly revision: number
  /** Too many removals were remembered for it: it must start over. */
  expire(): void
}

/** What happened to one name. `resource` is undefined when it went. */
export interface Step {
  readonly revision: number
  readonly name: string
  readonly resource: Resource | undefined
}

const VERSION_BYTES = 8
const MAX_REMEMBERED_REMOVALS = 100_000
/** Stale entries that are kept rather than swept out all the time. */
const SLACK = 1024

export class ResourceSet {
  readonly typeUrl: string
  readonly #live = new Map<string, Resource>()
  readonly #byKey = new MultiMap<string, Resource>()
  /** Their names: each is said by every member. */
  readonly #groups = new Interner<string>()
  readonly #removed = new Map<string, number>()
  readonly #followers = new Set<Follower>()
  /** In the order of revisions; a name's earlier entries are stale. */
  #history: { readonly revision: number; readonly name: string }[] = []
  #revision = 0
  #forgetAt = SLACK

  constructor(typeUrl: string) {
    this.typeUrl = typeUrl
  }

  get revision(): number {
    return this.#revision
  }

  get size(): number {
    return this.#live.size
  }

  get(name: string): Resource | undefined {
    return this.#live.get(name)
  }

  names(): Iterable<string> {
    return this.#live.keys()
  }

  /** Puts a resource in; reports whether that changed anything. */
  put(name: string, { bytes, aliases = [], groups = [] }: ResourceContent): boolean {
    const before = this.#live.get(name)
    const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
    if (before?.content === content) return false
    if (before) this.#unindex(before)
    const version = hash('sha256', bytes, 'buffer').toString('hex', 0, VERSION_BYTES)
    const resource: Resource = {
      name: before?.name ?? name,
      version,
      revision: ++this.#revision,
      aliases,
      groups: groups.map(group => this.#groups.get(group, () => group)),
      content,
    }
    this.#live.set(resource.name, resource)
    this.#removed.delete(name)
    for (const key of [...aliases, ...resource.groups]) this.#byKey.add(key, resource)
    this.#remember(resource.name)
    return true
  }

  /** Takes a resource out; reports whether it was there. */
  remove(name: string): boolean {
    const before = this.#live.get(name)
    if (!before) return false
    this.#unindex(before)
    this.#live.delete(name)
    this.#removed.set(name, ++this.#revision)
    this.#remember(name)
    return true
  }

  /** The resource of that name, else those that have it as an alias: usually one. */
  named(name: string): Resource[] {
    const direct = this.#live.get(name)
    return direct ? [direct] : [...this.#byKey.get(name)].filter(({ aliases }) => aliases.includes(name))
  }

  /** What is grouped under the name. */
  members(name: string): Resource[] {
    return [...this.#byKey.get(name)].filter(({ groups }) => groups.includes(name))
  }

  /** What one who asks for `name` gets: the resource of that name or alias, and everything grouped with it. */
  lookup(name: string): ReadonlySet<Resource> {
    const named = this.named(name)
    const found = new Set([...named, ...this.members(name)])
    for (const resource of named)
      if (resource.name !== name) for (const member of this.members(resource.name)) found.add(member)
    return found
  }

  /** What happened after `revision`, oldest first, each name once, as long as nothing changes meanwhile. */
  *since(revision: number): Generator<Step> {
    for (let at = this.#positionAfter(revision); at < this.#history.length; at++) {
      const entry = this.#history[at]!
      const resource = this.#live.get(entry.name)
      const isCurrent = (resource?.revision ?? this.#removed.get(entry.name)) === entry.revision
      if (isCurrent) yield { ...entry, resource }
    }
  }

  follow(follower: Follower): void {
    this.#followers.add(follower)
  }

  unfollow(follower: Follower): void {
    this.#followers.delete(follower)
  }

  #unindex(resource: Resource): void {
    for (const key of [...resource.aliases, ...resource.groups]) this.#byKey.delete(key, resource)
  }

  #remember(name: string): void {
    this.#history.push({ revision: this.#revision, name })
    if (this.#removed.size >= this.#forgetAt) this.#forget()
    if (this.#history.length > SLACK + 2 * (this.#live.size + this.#removed.size))
      this.#history = [...this.since(0)].map(({ revision, name }) => ({ revision, name }))
  }

  /** Forgets removals that everybody has heard of; when there are too many others, those who lag start over. */
  #forget(): void {
    this.#forgetHeard()
    if (this.#removed.size >= MAX_REMEMBERED_REMOVALS) {
      const [, median] = [...this.#removed][this.#removed.size >>> 1]!
      for (const follower of this.#followers)
        if (follower.revision < median) {
          this.#followers.delete(follower)
          follower.expire()
        }
      this.#forgetHeard()
    }
    this.#forgetAt = Math.min(MAX_REMEMBERED_REMOVALS, SLACK + 2 * this.#removed.size)
  }

  #forgetHeard(): void {
    let heardByAll = this.#revision
    for (const follower of this.#followers) heardByAll = Math.min(heardByAll, follower.revision)
    for (const [name, revision] of this.#removed) {
      if (revision > heardByAll) break // they are in the order of revisions
      this.#removed.delete(name)
    }
  }

  /** Index of the first history entry after `revision`. */
  #positionAfter(revision: number): number {
    let low = 0
    let high = this.#history.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#history[middle]!.revision > revision) high = middle
      else low = middle + 1
    }
    return low
  }
}
