/**
 * What a client wants that asks by name, and what it has. A name stands for the resource that is called so or has
 * it as an alias, and for everything grouped with it: a service's address for the service and its endpoints. The
 * client is kept true to that: it is sent what comes to belong to its names, and told of what no longer does.
 *
 * Every name that is asked for is answered under itself, last of all that it stands for: by a resource of that
 * name, which for an alias is the resource once more, or as removed when there is none. So a client that waits for
 * its question's answer, as ztunnel does, knows the name to wait for; and once it has come the answer is whole,
 * however many responses it took. Work is done for what has changed, not for all that is wanted.
 */
import { CulvertError } from '../../lib/errors.ts'
import { MultiMap } from '../world/multi-map.ts'
import type { PortionBuilder } from './portion.ts'
import type { Resource, ResourceSet } from './resource-set.ts'

const MAX_NAMES = 50_000
const MAX_NAME_CHARS = 1024

export class Named {
  readonly #set: ResourceSet
  readonly #always: readonly string[]
  readonly #names = new Set<string>()
  /** Names still to be answered for; true when the client is to be given them whatever it has. */
  readonly #asked = new Map<string, boolean>()
  /** Resources that the client came with: whether it still wants them is to be seen. */
  readonly #doubtful = new Set<string>()
  /** Names of resources to versions. Of an alias only until it is answered: what a client that returns has of it. */
  readonly #has = new Map<string, string>()
  /** Aliases that were answered with a resource, by its name and the other way round. */
  readonly #aliases = new MultiMap<string, string>()
  readonly #holders = new Map<string, string>()

  /** @param always given unasked, by any key that the set looks up */
  constructor(set: ResourceSet, always: readonly string[]) {
    this.#set = set
    this.#always = always
  }

  /** Reports whether there are names to answer for. */
  get isAsked(): boolean {
    return this.#asked.size > 0 || this.#doubtful.size > 0
  }

  /** What the client has, by name. */
  get has(): ReadonlyMap<string, string> {
    return this.#has
  }

  /** Asks for a name, once more if it was before. Throws `INPUT` when there are too many. */
  want(name: string, isForced: boolean): void {
    const isNew = !this.#names.has(name)
    if (isNew && (name.length > MAX_NAME_CHARS || this.#names.size >= MAX_NAMES))
      throw new CulvertError('INPUT', `more than ${MAX_NAMES} names are asked for, or one is too long`)
    this.#names.add(name)
    this.#asked.set(name, isForced)
  }

  /** Gives a name up. What it alone stood for the client forgets by itself: it is told nothing. */
  unwant(name: string): void {
    const found = this.#set.lookup(name)
    this.#names.delete(name)
    if (!this.#always.includes(name)) this.#asked.delete(name)
    this.#unanswer(name)
    for (const { name } of found) if (!this.#wants(name)) this.#has.delete(name)
  }

  /**
   * Begins with what a client that returns says it has. One that names nothing else means that it wants just this.
   * Throws `INPUT` when it is too much.
   */
  resume(versions: ReadonlyMap<string, string>): void {
    const isAll = this.#names.size === 0
    for (const name of [...this.#always, ...this.#names])
      if (!this.#asked.has(name)) this.#asked.set(name, false)
    for (const [name, version] of versions) {
      if (isAll) this.want(name, false)
      else this.#doubtful.add(name)
      this.#has.set(name, version)
    }
  }

  /** The client is told everything from here on: what it has and why need not be known. */
  rest(): void {
    for (const alias of this.#holders.keys()) this.#unanswer(alias)
    this.#doubtful.clear()
    this.#has.clear()
  }

  /** To one that is told everything: once more what it asks for by name. Reports whether nothing is left. */
  repeat(portion: PortionBuilder): boolean {
    for (const [name, isForced] of this.#asked) {
      if (portion.isFull) return false
      this.#asked.delete(name)
      if (!isForced) continue
      const named = this.#set.named(name)
      for (const resource of named) portion.add(resource)
      const last = named.at(-1)
      if (!last) portion.remove(name)
      else if (last.name !== name) portion.addAs(name, last)
    }
    return true
  }

  /** Answers for names until none is left or the portion is full; reports whether none is left. */
  answer(portion: PortionBuilder): boolean {
    for (const [name, isForced] of this.#asked) {
      if (!this.#answerOne(name, isForced, portion)) return false
      this.#asked.delete(name)
    }
    for (const name of this.#doubtful) {
      if (!this.follow(name, portion)) return false
      this.#doubtful.delete(name)
    }
    return true
  }

  /** Says what has become of a resource that came, changed or went; false when the portion is full before the end. */
  follow(name: string, portion: PortionBuilder): boolean {
    const resource = this.#set.get(name)
    if (resource !== undefined && this.#wants(name)) {
      if (!this.#give(resource, portion)) return false
      for (const member of this.#set.members(name)) if (!this.#give(member, portion)) return false
    } else {
      this.#take(name, portion)
      for (const member of this.#set.members(name))
        if (this.#has.has(member.name) && !this.#wants(member.name)) this.#take(member.name, portion)
    }
    return this.#retell(name, resource, portion)
  }

  #answerOne(name: string, isForced: boolean, portion: PortionBuilder): boolean {
    const found = this.#set.lookup(name)
    if (isForced) {
      for (const resource of found) this.#has.delete(resource.name)
      this.#asked.set(name, false) // what is given from here on need not be given again when this portion is full
    }
    for (const resource of found) if (!this.#give(resource, portion)) return false
    return !this.#names.has(name) || this.#tell(name, portion)
  }

  /** Answers under the name itself. */
  #tell(name: string, portion: PortionBuilder): boolean {
    const holder = [...this.#set.named(name)].at(-1)
    if (!holder) portion.remove(name)
    else if (holder.name !== name) {
      if (portion.isFull) return false
      if (this.#has.get(name) !== holder.version) portion.addAs(name, holder)
      this.#unanswer(name)
      this.#answeredBy(name, holder)
    }
    if (holder?.name !== name) this.#has.delete(name)
    return true
  }

  /** Keeps the answers under aliases true. */
  #retell(name: string, resource: Resource | undefined, portion: PortionBuilder): boolean {
    for (const alias of this.#aliases.get(name)) {
      if (resource?.aliases.includes(alias)) continue
      this.#unanswer(alias)
      const [other] = this.#set.named(alias)
      if (other) this.#answeredBy(alias, other)
      else portion.remove(alias)
    }
    for (const alias of resource?.aliases ?? []) {
      if (!this.#names.has(alias) || this.#holders.has(alias)) continue
      // Others may have come to have it at the same time.
      for (const found of this.#set.lookup(alias)) if (!this.#give(found, portion)) return false
      if (!this.#tell(alias, portion)) return false
    }
    return true
  }

  #answeredBy(alias: string, holder: Resource): void {
    this.#holders.set(alias, holder.name)
    this.#aliases.add(holder.name, alias)
  }

  #unanswer(alias: string): void {
    const holder = this.#holders.get(alias)
    if (holder === undefined) return
    this.#holders.delete(alias)
    this.#aliases.delete(holder, alias)
  }

  #give(resource: Resource, portion: PortionBuilder): boolean {
    if (this.#has.get(resource.name) === resource.version) return true
    if (portion.isFull) return false
    portion.add(resource)
    this.#has.set(resource.name, resource.version)
    return true
  }

  #take(name: string, portion: PortionBuilder): void {
    if (this.#has.delete(name)) portion.remove(name)
  }

  /** Reports whether some name stands for the resource: the opposite way of the set's `lookup`. */
  #wants(name: string): boolean {
    const resource = this.#set.get(name)
    if (!resource) return false
    const isNamed = (key: string): boolean => this.#names.has(key) || this.#always.includes(key)
    return (
      isNamed(name) ||
      resource.aliases.some(isNamed) ||
      resource.groups.some(group => isNamed(group) || this.#set.get(group)?.aliases.some(isNamed))
    )
  }
}
