/**
 * A campaign: cases by the hundred against a live data plane, while an honest client goes on through the same listener.
 * Everything that should not be becomes a finding, with the cases that were under way.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConnectionRecord } from '../../agent/worker/messages.ts'
import { attack, isOurFault, type Outcome } from './attacks.ts'
import { HostileServer } from './attack-client.ts'
import { recordCaptures, type Capture } from './captures.ts'
import { isToClient, makeCase, type Case, type Kind, type Sources } from './cases.ts'
import { Honest } from './honest.ts'
import type { HonestReport } from './honest-client.ts'
import type { Measured } from '../helpers/victim.ts'
import { Scope } from './scope.ts'
import { clientHello, Target, type Facts } from './target.ts'

export interface FuzzOptions {
  /** Ends the campaign after so long, s; beside it, after so many cases. */
  readonly seconds: number
  readonly cases?: number
  readonly seed: number
  /** Captures beside those that are recorded. */
  readonly corpus?: readonly Capture[]
  /** These instead of new ones, in this order, one at a time. */
  readonly replay?: readonly Case[]
  /** Judge times too. @default true */
  readonly isTimed?: boolean
  readonly signal: AbortSignal
  readonly progress?: (now: Progress) => void
  readonly found?: (finding: Finding) => void
}

export interface Progress {
  readonly elapsedMs: number
  readonly cases: number
  readonly findings: number
}

export interface Finding {
  readonly what: string
  /** The one it came of, or those that were under way, the latest last. */
  readonly cases: readonly Case[]
}

export interface FuzzReport {
  readonly seed: number
  readonly seconds: number
  readonly cases: Readonly<Record<Kind, number>>
  /** How cases of each kind ended, and how many did so. */
  readonly endings: Readonly<Record<string, number>>
  readonly honestBefore: HonestReport
  readonly honestDuring: HonestReport
  /** Before the first case, after the first part of them, and when all was over. */
  readonly start: Facts
  readonly warm: Measured
  readonly end: Facts
  readonly findings: readonly Finding[]
}

const WORKERS = 6
const MOST_FINDINGS = 10
/** Cases that are kept for a finding which no single one can be blamed for. */
const RECENT = 24

/** The honest client alone, at the beginning. */
const BEFORE_MS = 1000
/** Part of the time after which memory is taken as it will stay. */
const WARM_PART = 0.25

const MIB = 1024 * 1024
/** Growth from the warm state to the end: caches and tables that fill up, and no more. */
const MAX_HELD_GROWTH = 8 * MIB
/** The resident set keeps what was needed for a moment, in pieces that the allocator cannot give back. */
const MAX_RSS_GROWTH = 96 * MIB
/** Processor time that the event loop was held at a time: what an honest connection may have to wait. */
const MAX_HELD_MS = 250
/** An honest round trip beside the attack, where all share two processors. */
const MAX_P99_MS = 500
/** Sessions that the pool between the two pods may have opened more than it had; two ends each. */
const MORE_SESSIONS = 4
const MORE_TIMERS = 24

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const scope = new Scope()
  try {
    return await new Campaign(options).run(scope)
  } finally {
    await scope.close()
  }
}

class Campaign {
  readonly #options: FuzzOptions
  readonly #findings: Finding[] = []
  readonly #underWay = new Set<Case>()
  readonly #recent: Case[] = []
  readonly #counts: Record<Kind, number> = { 'to-server': 0, 'to-client': 0, 'to-tls': 0, 'to-capture': 0 }
  readonly #endings: Record<string, number> = {}
  readonly #stop = new AbortController()
  /** Which case a connection was of, by its port at the attacker's end. */
  readonly #byPort = new Map<number, number>()
  #again: (number: number | undefined) => Case | undefined = () => undefined
  #isOver = false

  constructor(options: FuzzOptions) {
    this.#options = options
    if (options.signal.aborted) this.#stop.abort()
    else options.signal.addEventListener('abort', () => this.#stop.abort(), { once: true })
  }

  async run(scope: Scope): Promise<FuzzReport> {
    const { seed, replay, seconds } = this.#options
    const target = await Target.start(scope)
    this.#watch(target)
    const hostile = await HostileServer.start(scope, target)
    const honestBefore = await this.#honestly(target, () => this.#sleep(BEFORE_MS))
    const start = await target.facts()
    const sources = await sourcesOf(target, this.#options.corpus)
    this.#again = number =>
      number === undefined
        ? undefined
        : (replay?.find(one => one.number === number) ?? makeCase(seed, number, sources))
    const startedAt = performance.now()
    let warm: Measured = start
    const honestDuring = await this.#honestly(target, async () => {
      const ticker = setInterval(() => this.#tell(startedAt), 1000)
      try {
        if (replay) await this.#replay(target, hostile, replay)
        else {
          const cases = this.#attack(target, hostile, sources)
          await this.#sleep(seconds * 1000 * WARM_PART)
          if (!this.#isOver && target.ended === undefined) warm = await target.measured()
          await this.#sleep(startedAt + seconds * 1000 - performance.now())
          this.#isOver = true
          await cases
        }
      } finally {
        clearInterval(ticker)
      }
    })
    const end = await this.#end(target, start)
    if (target.stderr)
      this.#find(`the data plane wrote to its standard error: ${target.stderr.trim().slice(0, 1000)}`)
    this.#judge(honestDuring, { start, warm, end })
    return {
      seed,
      seconds: (performance.now() - startedAt) / 1000,
      cases: this.#counts,
      endings: this.#endings,
      honestBefore,
      honestDuring,
      start,
      warm,
      end,
      findings: this.#findings,
    }
  }

  /** The honest client's report of the time that something took; it is there for just that long. */
  async #honestly(target: Target, something: () => Promise<void>): Promise<HonestReport> {
    const scope = new Scope()
    try {
      const honest = await Honest.start(scope, target)
      await something()
      return await honest.report()
    } finally {
      await scope.close()
    }
  }

  async #attack(target: Target, hostile: HostileServer, sources: Sources): Promise<void> {
    const { seed, cases = Number.POSITIVE_INFINITY } = this.#options
    const numbers = { toClient: 0, others: 0 }
    const worker = async (mine: keyof typeof numbers, how: (one: Case) => Promise<Outcome>) => {
      while (!this.#isOver && !this.#stop.signal.aborted) {
        const number = numbers[mine]++
        if (number >= cases) return
        if (isToClient(number) !== (mine === 'toClient')) continue
        const one = makeCase(seed, number, sources)
        await this.#carryOut(one, () => how(one))
      }
    }
    // One for each address that there is to answer on.
    const answering = hostile.addresses.map(address =>
      worker('toClient', one => hostile.answer(one, address)),
    )
    const attacking = Array.from({ length: WORKERS }, () => worker('others', one => attack(target, one)))
    await Promise.all([...answering, ...attacking])
    this.#isOver = true
    this.#stop.abort()
  }

  async #replay(target: Target, hostile: HostileServer, cases: readonly Case[]): Promise<void> {
    for (const one of cases) {
      if (this.#stop.signal.aborted) return
      await this.#carryOut(one, () =>
        one.kind === 'to-client' ? hostile.answer(one, hostile.addresses[0]!) : attack(target, one),
      )
    }
  }

  async #carryOut(one: Case, how: () => Promise<Outcome>): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#underWay.add(one)
    const { ended, finding, ports = [] } = await how()
    for (const port of ports) this.#byPort.set(port, one.number)
    this.#underWay.delete(one)
    this.#recent.push(one)
    if (this.#recent.length > RECENT) this.#recent.shift()
    this.#counts[one.kind]++
    const ending = `${one.kind}: ${ended}`
    this.#endings[ending] = (this.#endings[ending] ?? 0) + 1
    if (finding !== undefined) this.#find(`${one.kind}: ${finding}`, [one])
  }

  #watch(target: Target): void {
    target.events = {
      died: how => {
        this.#find(`the data plane ended ${how}: ${target.stderr.trim().slice(-1000)}`)
        this.#stop.abort()
      },
      log: ({ level, message, fields }) => {
        const error = typeof fields['err'] === 'string' ? fields['err'] : ''
        if (level === 'error' || isOurFault(0, error) || error.endsWith('(INTERNAL_ERROR)'))
          this.#find(`${level} in the log: ${message} ${JSON.stringify(fields)}`)
      },
      closed: ({ error = '' }: ConnectionRecord) => {
        // What the peer said of itself is not meant.
        if (/^tunnel lost: .*\(INTERNAL_ERROR\)$/.test(error) || isOurFault(0, error))
          this.#find(`a connection ended: ${error}`)
      },
    }
  }

  /** No case is under way any more, and nobody is connected: what is left was leaked. */
  async #end(target: Target, start: Facts): Promise<Facts> {
    if (target.ended !== undefined) return start
    return target.settled(
      facts =>
        facts.open.length === 0 &&
        facts.tunnels <= start.tunnels &&
        facts.timers <= start.timers + MORE_TIMERS &&
        facts.sessions <= start.sessions + MORE_SESSIONS &&
        facts.descriptors <= start.descriptors + MORE_SESSIONS,
    )
  }

  #judge(honest: HonestReport, { start, warm, end }: { start: Facts; warm: Measured; end: Facts }): void {
    const limit = (what: string, value: number, most: number, unit = '') => {
      if (value > most)
        this.#find(`${what}: ${round(value)}${unit}, at most ${round(most)}${unit} are in order`)
    }
    if (honest.failed > 0)
      this.#find(`the honest client failed ${honest.failed} times: ${honest.failures.join(', ')}`)
    if (honest.roundTrips === 0) this.#find('the honest client did not get through at all')
    if (this.#options.isTimed !== false) {
      const heldMs = Math.max(warm.longestHeldMs, end.longestHeldMs)
      limit('p99 of an honest round trip', honest.p99Ms, MAX_P99_MS, ' ms')
      limit('longest hold of the event loop', heldMs, MAX_HELD_MS, ' ms')
    }
    if (end.open.length > 0) {
      const left = end.open.slice(0, 5)
      const cases = left.flatMap(({ port }) => this.#again(this.#byPort.get(port)) ?? [])
      this.#find(`connections left open: ${left.map(({ text }) => text).join('; ')}`, cases)
    }
    limit('streams left', end.tunnels, start.tunnels)
    limit('sessions left', end.sessions, start.sessions + MORE_SESSIONS)
    limit('descriptors left', end.descriptors, start.descriptors + MORE_SESSIONS)
    limit('timers left', end.timers, start.timers + MORE_TIMERS)
    limit('growth of held memory', (end.heldBytes - warm.heldBytes) / MIB, MAX_HELD_GROWTH / MIB, ' MiB')
    limit('growth of resident memory', (end.rssBytes - warm.rssBytes) / MIB, MAX_RSS_GROWTH / MIB, ' MiB')
  }

  /** Notes a finding; without cases it is of those under way and the last ones before. */
  #find(what: string, cases: readonly Case[] = [...this.#recent, ...this.#underWay]): void {
    const isKnown = this.#findings.some(finding => sameWords(finding.what) === sameWords(what))
    if (isKnown || this.#findings.length >= MOST_FINDINGS) return
    const finding = { what, cases }
    this.#findings.push(finding)
    this.#options.found?.(finding)
    if (this.#findings.length === MOST_FINDINGS) this.#stop.abort()
  }

  #tell(startedAt: number): void {
    const cases = Object.values(this.#counts).reduce((sum, count) => sum + count, 0)
    this.#options.progress?.({
      elapsedMs: performance.now() - startedAt,
      cases,
      findings: this.#findings.length,
    })
  }

  /** Shorter when the campaign is over before. */
  async #sleep(ms: number): Promise<void> {
    if (ms > 0) await sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => undefined)
  }
}

async function sourcesOf(target: Target, corpus: readonly Capture[] = []): Promise<Sources> {
  const captures = [...(await recordCaptures(target.authorities)), ...corpus]
  const hellos = [
    await clientHello({ ALPNProtocols: ['h2'] }),
    await clientHello({ ALPNProtocols: ['http/1.1'], servername: 'echo.shop.svc.cluster.local' }),
  ]
  return { captures, hellos, authorities: Object.values(target.authorities) }
}

/** The same finding with other numbers is the same finding. */
function sameWords(what: string): string {
  return what.replaceAll(/[0-9a-f.:]*\d[0-9a-f.:]*/g, '#')
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
