/**
 * What passed by without the agent, as the kernel counted it: the rules' own counters, read from each enrolled pod
 * every few seconds and added up under the words of the common vocabulary. Rules that had to be put back count from
 * zero again, so sums are made of differences.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { UncapturedReason } from '../../lib/reasons.ts'
import type { AgentMetrics, UncapturedWord } from '../observe/metrics.ts'
import { readCounters } from '../redirect/apply.ts'
import { forgedMarks, type CounterName, type Counters } from '../redirect/counters.ts'
import type { PodLife } from './pod-life.ts'

/** Which word each counter belongs to; those of captured traffic have none here. */
const WORDS: Partial<Record<CounterName, UncapturedReason>> = {
  loopback: 'loopback',
  'udp-dns/outbound': 'udp-dns',
  'udp-dns/inbound': 'udp-dns',
  'udp/outbound': 'udp',
  'udp/inbound': 'udp',
  'pre-enrolment/outbound': 'pre-enrolment',
  'pre-enrolment/inbound': 'pre-enrolment',
  'strict/inbound': 'drift',
  'require/outbound': 'drift',
}

function wordOf(name: CounterName): UncapturedWord | undefined {
  if (name.startsWith('excluded-port/')) return 'excluded-port'
  if (name.startsWith('excluded-cidr/')) return 'excluded-cidr'
  return WORDS[name]
}

/** Reading a pod costs two short processes: with many pods each is read less often. */
const EVERY_MS = 5000
const PER_POD_MS = 250

export interface UncapturedOptions {
  readonly pods: () => Iterable<PodLife>
  readonly metrics: AgentMetrics
  readonly log: Logger
}

interface PodCounts {
  last: Counters
  /** Under the agent's mark, over all lives of the rules. */
  marked: bigint
  /** How many more these were than the agent had told of, at the last reading. */
  excess: bigint
  /** Reported as forged. */
  forged: bigint
}

export class UncapturedCounters {
  readonly #options: UncapturedOptions
  readonly #pods = new Map<string, PodCounts>()
  /** Connections that the agent itself made out of each pod, by thread. */
  readonly #dialled: Readonly<Record<string, number>>[] = []

  constructor(options: UncapturedOptions) {
    this.#options = options
  }

  /** A data-plane thread tells how many connections it has made, by pod uid. */
  dialled(thread: number, counts: Readonly<Record<string, number>>): void {
    this.#dialled[thread] = counts
  }

  /** Reads until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const waitMs = Math.max(EVERY_MS, this.#pods.size * PER_POD_MS)
      await sleep(waitMs, undefined, { signal }).catch(() => undefined)
      if (!signal.aborted) await this.read()
    }
  }

  /** Reads every enrolled pod once. */
  async read(): Promise<void> {
    const seen = new Set<string>()
    for (const life of this.#options.pods()) {
      if (life.netnsFd === undefined) continue
      seen.add(life.pod.uid)
      try {
        // Told before the kernel is asked: what is dialled in between must not look forged.
        const dialled = this.#dialledBy(life.pod.uid)
        this.#add(life, await readCounters(life.netnsFd), dialled)
      } catch (err) {
        this.#options.log.debug(
          { pod: life.pod.name, err: errorText(err) },
          'rule counters could not be read',
        )
      }
    }
    for (const uid of this.#pods.keys()) if (!seen.has(uid)) this.#pods.delete(uid)
  }

  #add(life: PodLife, now: Counters, dialled: bigint): void {
    const { metrics } = this.#options
    const counts = this.#pods.get(life.pod.uid) ?? { last: {}, marked: 0n, excess: 0n, forged: 0n }
    for (const [name, value] of Object.entries(now) as [CounterName, bigint][]) {
      const grown = grownBy(counts.last[name], value)
      if (grown === 0n) continue
      if (name === 'marked/outbound') counts.marked += grown
      const word = wordOf(name)
      if (word) metrics.uncaptured(word, Number(grown))
    }
    this.#compareMarks(life, counts, dialled)
    counts.last = now
    this.#pods.set(life.pod.uid, counts)
  }

  /**
   * A thread tells what it has dialled a little later than the kernel counts it, so an excess is believed only as far
   * as it was there at the last reading too.
   */
  #compareMarks(life: PodLife, counts: PodCounts, dialled: bigint): void {
    const excess = forgedMarks({ 'marked/outbound': counts.marked }, dialled)
    const certain = excess < counts.excess ? excess : counts.excess
    counts.excess = excess
    if (certain <= counts.forged) return
    this.#options.metrics.uncaptured('forged-mark', Number(certain - counts.forged))
    counts.forged = certain
    this.#options.log.warn(
      { pod: `${life.pod.namespace}/${life.pod.name}`, connections: Number(certain) },
      "connections under the agent's mark that are not the agent's",
    )
  }

  #dialledBy(uid: string): bigint {
    let sum = 0
    for (const counts of this.#dialled) sum += counts?.[uid] ?? 0
    return BigInt(sum)
  }
}

/** A counter that is smaller than before has begun anew. */
function grownBy(before: bigint | undefined, now: bigint): bigint {
  return before === undefined || now < before ? now : now - before
}
