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
  readonly pods: () => Iterable<CountedPod>
  readonly metrics: Pick<AgentMetrics, 'uncaptured'>
  readonly log: Logger
  /** @default the kernel's, by iptables-save */
  readonly readCounters?: (netnsFd: number) => Promise<Counters>
}

export type CountedPod = Pick<PodLife, 'pod' | 'netnsFd' | 'isAdopted'>

interface PodCounts {
  last: Counters
  /** Under the agent's mark, over all lives of the rules, up to the last reading. */
  marked: bigint
  /** What the agent had told of when its count of marks began. */
  readonly toldBefore: bigint
  /** Reported as forged. */
  forged: bigint
}

export class UncapturedCounters {
  readonly #options: Required<UncapturedOptions>
  readonly #pods = new Map<string, PodCounts>()
  /** Connections that the agent itself made out of each pod, by thread. */
  readonly #dialled: Readonly<Record<string, number>>[] = []

  constructor(options: UncapturedOptions) {
    this.#options = { readCounters, ...options }
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
      const { pod, netnsFd } = life
      seen.add(pod.uid)
      if (netnsFd === undefined) {
        // Its rules have gone, and their counts with them.
        if (this.#pods.has(pod.uid)) this.#pods.set(pod.uid, startingWith({}, this.#dialledBy(pod.uid)))
        continue
      }
      try {
        this.#add(life, await this.#options.readCounters(netnsFd))
      } catch (err) {
        this.#options.log.debug({ pod: pod.name, err: errorText(err) }, 'rule counters could not be read')
      }
    }
    for (const uid of this.#pods.keys()) if (!seen.has(uid)) this.#pods.delete(uid)
  }

  #add(life: CountedPod, now: Counters): void {
    const { metrics } = this.#options
    const { uid } = life.pod
    let counts = this.#pods.get(uid)
    if (counts) this.#compareMarks(life, counts)
    else {
      // What the rules of an agent before this one have counted was told by that one.
      counts = life.isAdopted ? startingWith(now, this.#dialledBy(uid)) : startingWith({}, 0n)
      this.#pods.set(uid, counts)
    }
    for (const [name, value] of Object.entries(now) as [CounterName, bigint][]) {
      const grown = grownBy(counts.last[name], value)
      if (grown === 0n) continue
      if (name === 'marked/outbound') counts.marked += grown
      const word = wordOf(name)
      if (word) metrics.uncaptured(word, Number(grown))
    }
    counts.last = now
  }

  /**
   * A thread tells what it has dialled a little later than the kernel counts it. So what the kernel had counted at the
   * last reading is compared with what has been told by now: all of the agent's own is in that.
   */
  #compareMarks({ pod }: CountedPod, counts: PodCounts): void {
    const told = this.#dialledBy(pod.uid) - counts.toldBefore
    const forged = forgedMarks({ 'marked/outbound': counts.marked }, told)
    if (forged <= counts.forged) return
    this.#options.metrics.uncaptured('forged-mark', Number(forged - counts.forged))
    counts.forged = forged
    this.#options.log.warn(
      { pod: `${pod.namespace}/${pod.name}`, connections: Number(forged) },
      "connections under the agent's mark that are not the agent's",
    )
  }

  #dialledBy(uid: string): bigint {
    let sum = 0
    for (const counts of this.#dialled) sum += counts?.[uid] ?? 0
    return BigInt(sum)
  }
}

function startingWith(last: Counters, toldBefore: bigint): PodCounts {
  return { last, marked: 0n, toldBefore, forged: 0n }
}

/** A counter that is smaller than before has begun anew. */
function grownBy(before: bigint | undefined, now: bigint): bigint {
  return before === undefined || now < before ? now : now - before
}
