/**
 * What an agent that does not hold the whole mesh has asked discovery for, by name. A name is asked for when a
 * connection depends on it, and from its answer on the server tells of every change, "there is none" included: what
 * is known under it is as fresh as if everything was held. Names that nobody has used for a while are given up.
 *
 * Who keeps answers does not ask again, so a name in use may look idle: at half of its time those who keep an answer
 * that came from it are made to ask once more (`changed`). Every answer that anybody keeps has its name here, or was
 * called back (`changed`) when the name went.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock, type Clock, type Timer } from '../../lib/clock.ts'
import { Asker, DEMAND_LIMITS, type DemandLimits, type DemandState, type Wanted } from './asker.ts'
import { NameChanges } from './name-changes.ts'
import type { NamedWants, WantsLink } from './resource-kind.ts'

export interface DemandOptions {
  /** Tells names that are asked for from those of resources. */
  readonly isName: (name: string) => boolean
  /** The server answers each name under itself when all that it stands for has been told; else a response at its end is the answer. */
  readonly isAnsweredByName: boolean
  /** The answers that came from the name no longer hold, or may be better now. */
  readonly changed: (name: string) => void
  /** The name is wanted no more: neither is what was held because of it alone. */
  readonly dropped: (name: string) => void
  /** Questions were turned away for want of room: their answers are nowhere to be called back by name. */
  readonly stale: () => void
  /** The stream has ended: who waits is to think again. */
  readonly lost: () => void
  readonly limits?: Partial<DemandLimits>
  /** @default systemClock */
  readonly clock?: Clock
}

const LINE_MS = 20
const SWEEP_MS = 60_000

export interface DemandCounters {
  /** Names asked for. */
  asked: number
  answered: number
  /** Names given up because nobody used them, or others needed the room. */
  givenUp: number
  /** Questions for which there was no room. */
  turnedAway: number
}

export class Demand implements NamedWants {
  readonly counters: DemandCounters = { asked: 0, answered: 0, givenUp: 0, turnedAway: 0 }
  readonly #options: DemandOptions
  readonly #limits: DemandLimits
  readonly #clock: Clock
  readonly #wanted = new Map<string, Wanted>()
  readonly #askers = new Map<string, Asker>()
  readonly #news = new NameChanges()
  /** Named by resources of a response that is being applied. */
  readonly #arrived = new Set<string>()
  #lineTimer: Timer | undefined
  #canAsk = false
  #isStale = false
  /** Told how long each answer took, milliseconds. */
  onAnswer: ((tookMs: number) => void) | undefined

  constructor(options: DemandOptions) {
    this.#options = options
    this.#limits = { ...DEMAND_LIMITS, ...options.limits }
    this.#clock = options.clock ?? systemClock
  }

  get isAnsweredByName(): boolean {
    return this.#options.isAnsweredByName
  }

  /** Reports whether there is a stream to ask on. */
  get canAsk(): boolean {
    return this.#canAsk
  }

  has(name: string): boolean {
    return this.#wanted.has(name)
  }

  state(name: string): DemandState | undefined {
    return this.#wanted.get(name)?.state
  }

  /** Asks for a name, or uses it once more; false when there is no room for another question of this asker. */
  ask(name: string, askerKey: string): boolean {
    const known = this.#wanted.get(name)
    if (known) {
      this.#use(known, askerKey)
      return true
    }
    const asker = this.#askerOf(askerKey)
    if (!this.#hasRoom(asker)) {
      this.counters.turnedAway++
      this.#isStale = true
      return false
    }
    const nowMs = this.#clock.now()
    const common = { isSent: false, isDoubted: false, waiting: 0 }
    const wanted: Wanted = { name, asker, state: 'pending', askedAtMs: nowMs, usedAtMs: nowMs, ...common }
    this.#wanted.set(name, wanted)
    asker.keep(wanted)
    this.#send(wanted, asker)
    return true
  }

  /** While the promise is open the names are not given up. */
  async hold<T>(names: readonly string[], until: Promise<T>): Promise<T> {
    const all = names.flatMap(name => this.#wanted.get(name) ?? [])
    for (const wanted of all) wanted.waiting++
    try {
      return await until
    } finally {
      for (const wanted of all) wanted.waiting--
    }
  }

  /** Gives up what has not been used, again and again, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(SWEEP_MS, undefined, { signal, ref: false }).catch(() => undefined)
      if (!signal.aborted) this.sweep()
    }
    this.#lineTimer?.cancel()
    this.#lineTimer = undefined
  }

  /** Gives up what has not been used, and doubts what has not for half of that time. */
  sweep(): void {
    const nowMs = this.#clock.now()
    for (const wanted of this.#wanted.values()) {
      const idle = (nowMs - wanted.usedAtMs) / this.#limits.idleMs[wanted.state]
      if (idle >= 1 && wanted.waiting === 0) this.#drop(wanted)
      else if (idle >= 0.5 && !wanted.isDoubted) {
        wanted.isDoubted = true
        this.#options.changed(wanted.name)
      }
    }
    for (const [key, asker] of this.#askers) if (asker.size === 0) this.#askers.delete(key)
    if (this.#isStale) this.#options.stale()
    this.#isStale = false
  }

  attach(link: WantsLink): void {
    this.#news.attach(link)
  }

  begin(): string[] {
    this.#news.clear()
    for (const wanted of this.#wanted.values()) {
      wanted.isSent = true
      wanted.asker.line.clear()
    }
    return [...this.#wanted.keys()]
  }

  opened(): void {
    this.#canAsk = true
  }

  closed(): void {
    this.#arrived.clear()
    if (!this.#canAsk) return
    this.#canAsk = false
    this.#options.lost()
  }

  take(): { subscribe: string[]; unsubscribe: string[] } | undefined {
    return this.#news.take()
  }

  answer(name: string, isFound: boolean): boolean {
    const wanted = this.#wanted.get(name)
    if (wanted) this.#answered(wanted, isFound ? 'found' : 'absent')
    return wanted !== undefined || this.#options.isName(name) // an answer may come after the name was given up
  }

  /** A resource came that the name stands for. */
  arrived(name: string): void {
    if (!this.#options.isAnsweredByName && this.#wanted.has(name)) this.#arrived.add(name)
  }

  applied(): void {
    for (const name of this.#arrived) this.answer(name, true)
    this.#arrived.clear()
  }

  /** A resource that was held because of a name is held no more. */
  letGo(resource: string): void {
    this.#news.forget(resource)
    // Servers that do not answer by name follow whatever they have told of.
    if (!this.#options.isAnsweredByName) this.#news.giveUp(resource)
  }

  /** The server told of a resource that nothing wants: it need not do so again. */
  refuse(resource: string): void {
    this.#news.forget(resource)
    this.#news.giveUp(resource)
  }

  /** The number of names by what is known of them. */
  sizes(): Record<string, number> {
    const count = (state: DemandState) =>
      [...this.#askers.values()].reduce((sum, asker) => sum + asker.names[state].size, 0)
    return { askedPending: count('pending'), askedFound: count('found'), askedAbsent: count('absent') }
  }

  /** Everything asked for, as plain JSON. */
  dump(): Record<string, unknown> {
    const names = [...this.#wanted.values()].map(({ name, state, asker, usedAtMs }) => ({
      name,
      state,
      askedBy: asker.key,
      lastUsed: new Date(usedAtMs).toISOString(),
    }))
    return { canAsk: this.#canAsk, counters: { ...this.counters }, names }
  }

  #answered(wanted: Wanted, state: DemandState): void {
    if (wanted.state === state) return
    if (wanted.state === 'pending') {
      this.counters.answered++
      this.onAnswer?.(this.#clock.now() - wanted.askedAtMs)
    }
    const { asker } = wanted
    asker.line.delete(wanted)
    if (asker.isFull(state)) {
      const oldest = asker.oldest(state)
      if (oldest) this.#drop(oldest)
    }
    wanted.state = state
    asker.keep(wanted)
    this.#options.changed(wanted.name)
  }

  #use(wanted: Wanted, askerKey: string): void {
    wanted.usedAtMs = this.#clock.now()
    wanted.isDoubted = false
    // One who stands in a long line of its own must not keep others waiting for the same.
    if (!wanted.isSent && wanted.asker.key !== askerKey) {
      const asker = this.#askerOf(askerKey)
      if (asker.isFull('pending')) return
      wanted.asker.line.delete(wanted)
      wanted.asker.lose(wanted)
      wanted.asker = asker
      this.#send(wanted, asker)
    }
    wanted.asker.keep(wanted)
  }

  #send(wanted: Wanted, asker: Asker): void {
    if (asker.line.size > 0 || !asker.mayAsk(this.#clock.now())) {
      asker.line.add(wanted)
      this.#lineTimer ??= this.#clock.after(LINE_MS, () => this.#serveLines())
      return
    }
    wanted.isSent = true
    this.counters.asked++
    this.#news.ask(wanted.name)
  }

  #serveLines(): void {
    this.#lineTimer = undefined
    for (const asker of this.#askers.values()) {
      const line = [...asker.line]
      asker.line.clear()
      for (const wanted of line) this.#send(wanted, asker)
    }
  }

  #askerOf(key: string): Asker {
    let asker = this.#askers.get(key)
    if (!asker) this.#askers.set(key, (asker = new Asker(key, this.#limits)))
    return asker
  }

  /** Makes room for one more question, from what the asker has used longest ago; else from who has most. */
  #hasRoom(asker: Asker): boolean {
    if (asker.isFull('pending') && !this.#dropOldest(asker, ['pending'])) return false
    if (this.#wanted.size < this.#limits.total) return true
    let biggest = asker
    for (const other of this.#askers.values()) if (other.size > biggest.size) biggest = other
    return this.#dropOldest(biggest, ['absent', 'found', 'pending'])
  }

  #dropOldest(asker: Asker, states: readonly DemandState[]): boolean {
    for (const state of states) {
      const oldest = asker.oldest(state)
      if (!oldest) continue
      this.#drop(oldest)
      return true
    }
    return false
  }

  #drop(wanted: Wanted): void {
    const { name, asker } = wanted
    this.counters.givenUp++
    this.#wanted.delete(name)
    asker.line.delete(wanted)
    asker.lose(wanted)
    if (wanted.isSent) this.#news.giveUp(name)
    this.#news.forget(name)
    this.#options.dropped(name)
    this.#options.changed(name)
  }
}
