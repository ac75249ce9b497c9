/**
 * What a batch of updates touched, so that who keeps answers knows which to forget. Told once per turn of the
 * event loop, after every update of that turn has been applied.
 */

export interface Changes {
  /** Addresses whose workload or single-address VIP changed. */
  readonly ips: ReadonlySet<string>
  /** Keys of services that changed, or whose endpoints did. */
  readonly services: ReadonlySet<string>
  /** Something that may concern any address: policies, nodes, VIP ranges, the end of the first sync. */
  readonly broad: boolean
  /** Namespaces whose pods' enrolment may have changed. */
  readonly namespaces: ReadonlySet<string>
  /** Trust domains whose roots changed. */
  readonly trustDomains: ReadonlySet<string>
}

export type ChangeListener = (changes: Changes) => void

export class ChangeLog {
  readonly #listeners: ChangeListener[] = []
  #ips = new Set<string>()
  #services = new Set<string>()
  #namespaces = new Set<string>()
  #trustDomains = new Set<string>()
  #isBroad = false
  #isScheduled = false

  onChange(listener: ChangeListener): void {
    this.#listeners.push(listener)
  }

  ip(ip: string): void {
    this.#ips.add(ip)
    this.#schedule()
  }

  service(key: string): void {
    this.#services.add(key)
    this.#schedule()
  }

  namespace(name: string): void {
    this.#namespaces.add(name)
    this.#schedule()
  }

  trustDomain(name: string): void {
    this.#trustDomains.add(name)
    this.#schedule()
  }

  broad(): void {
    this.#isBroad = true
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => this.#tell())
  }

  #tell(): void {
    const changes: Changes = {
      ips: this.#ips,
      services: this.#services,
      broad: this.#isBroad,
      namespaces: this.#namespaces,
      trustDomains: this.#trustDomains,
    }
    this.#ips = new Set()
    this.#services = new Set()
    this.#namespaces = new Set()
    this.#trustDomains = new Set()
    this.#isBroad = false
    this.#isScheduled = false
    for (const listener of this.#listeners) listener(changes)
  }
}
