/**
 * One who asks discovery for addresses: a pod, for where it connects to or for who connects to it. What is asked for
 * on its account is bounded, in number and in time, so that a pod which tries address after address spends what is
 * its own: its questions wait, its addresses are forgotten, and those of its neighbours are not.
 */
export type DemandState = 'pending' | 'found' | 'absent'

/** One name that is asked for. */
export interface Wanted {
  readonly name: string
  asker: Asker
  state: DemandState
  /** The server has been asked, or is about to be. */
  isSent: boolean
  /** When it was first asked for, Unix time in milliseconds. */
  readonly askedAtMs: number
  usedAtMs: number
  /** Nobody has asked for a while: those who keep answers were told to ask again. */
  isDoubted: boolean
  /** Questions that wait for the answer. */
  waiting: number
}

export interface AskerLimits {
  /** Most names of each state. */
  readonly most: Readonly<Record<DemandState, number>>
  /** Questions to the server at once, after a rest. */
  readonly burst: number
  readonly perSecond: number
}

export interface DemandLimits extends AskerLimits {
  /** Names of all askers; servers hold fewer than 50,000 for one client. */
  readonly total: number
  /** Unused for so long a name is given up, milliseconds. */
  readonly idleMs: Readonly<Record<DemandState, number>>
}

/** A scrape of some thousand targets is nothing unusual, a table of those that do not exist is. */
export const DEMAND_LIMITS: DemandLimits = {
  most: { pending: 4096, found: 8192, absent: 1024 },
  burst: 4096,
  perSecond: 1000,
  total: 40_000,
  idleMs: { pending: 120_000, found: 600_000, absent: 120_000 },
}

export class Asker {
  readonly key: string
  /** By state, those used longest ago first. */
  readonly names: Readonly<Record<DemandState, Map<string, Wanted>>> = {
    pending: new Map(),
    found: new Map(),
    absent: new Map(),
  }
  /** Not sent yet, first come first. */
  readonly line = new Set<Wanted>()
  readonly #limits: AskerLimits
  #tokens: number
  #countedAtMs = 0

  constructor(key: string, limits: AskerLimits) {
    this.key = key
    this.#limits = limits
    this.#tokens = limits.burst
  }

  get size(): number {
    const { pending, found, absent } = this.names
    return pending.size + found.size + absent.size
  }

  isFull(state: DemandState): boolean {
    return this.names[state].size >= this.#limits.most[state]
  }

  /** The one of the state that was used longest ago, if nobody waits for it. */
  oldest(state: DemandState): Wanted | undefined {
    const [first] = this.names[state].values()
    return first?.waiting === 0 ? first : undefined
  }

  /** Puts it where those are that were used last, under its state. */
  keep(wanted: Wanted): void {
    this.lose(wanted)
    this.names[wanted.state].set(wanted.name, wanted)
  }

  lose({ name }: Wanted): void {
    for (const names of Object.values(this.names)) names.delete(name)
  }

  /** Reports whether a question may be sent now, and counts it. A clock set back only delays. */
  mayAsk(nowMs: number): boolean {
    const { burst, perSecond } = this.#limits
    const gained = ((nowMs - this.#countedAtMs) / 1000) * perSecond
    if (gained > 0) {
      this.#tokens = Math.min(burst, this.#tokens + gained)
      this.#countedAtMs = nowMs
    }
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
