/**
 * Pods found among the processes of the node, for runtimes that do not tell of them. A pod is seen when its first process
 * is there, a moment after it began: what it says in that moment passes as it is, and every pod that was found so says so.
 * While a pod is expected, looks are close to each other.
 *
 * A process tells the uid of its pod and where its network is; discovery tells the rest. So only pods that discovery knows
 * are told of; what it no longer knows is gone when its processes are.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { errorText } from '../../../lib/errors.ts'
import type { Logger } from '../../../lib/log.ts'
import type { Mesh } from '../../mesh/mesh.ts'
import { netnsInode, NODE_NETNS } from '../../sys/netns.ts'
import type { PodEvents, PodSource, SourceStatus } from '../source.ts'
import { Turns } from '../turns.ts'
import { CAVEAT, foundPod, type FoundPod } from './found.ts'
import { PodProcesses, type PodProcess } from './processes.ts'

export interface ProcPodSourceOptions {
  readonly mesh: Pick<Mesh, 'ownPod' | 'ownPods' | 'isSynced' | 'onEnrolmentChange'>
  readonly log: Logger
  /** Between two looks, milliseconds. @default 1000 */
  readonly lookMs?: number
  /** The same while a pod is expected. @default 100 */
  readonly hurryMs?: number
}

/** However much discovery has to tell. */
const SHORTEST_PAUSE_MS = 20
/** A pod that has been expected for so long has something else to wait for. */
const EXPECTED_MS = 60_000
/** A pod whose processes have all ended may be about to start another, as long as discovery knows it. */
const GONE_AFTER_LOOKS = 2
const GONE_AFTER_MS = 10_000

interface Told extends FoundPod {
  /** Looks that found no process of it, and since when. */
  missed: number
  missedSinceMs: number
}

export class ProcPodSource implements PodSource {
  readonly #options: Required<ProcPodSourceOptions>
  readonly #told = new Map<string, Told>()
  /** Pods that should be here and are not, and since when. */
  readonly #expected = new Map<string, number>()
  readonly #turns: Turns
  #wake = Promise.withResolvers<void>()
  #isSynced = false
  #complaint = ''
  #looks = { count: 0, lastMs: 0, longestMs: 0 }
  #unknown = 0

  constructor(options: ProcPodSourceOptions) {
    this.#options = { lookMs: 1000, hurryMs: 100, ...options }
    this.#turns = new Turns((podUid, err) =>
      options.log.error({ podUid, err: errorText(err) }, 'pod event failed'),
    )
    options.mesh.onEnrolmentChange(() => this.#wake.resolve())
  }

  status(): SourceStatus {
    const isSeeing = this.#told.size > 0 || this.#expected.size === 0
    return {
      kind: 'proc',
      waitsFor: this.#isSynced
        ? undefined
        : this.#complaint || 'discovery, to tell which pods are on this node',
      caveat: CAVEAT,
      hint: isSeeing ? undefined : 'no process of any pod is seen: the agent needs hostPID',
      pods: this.#told.size,
      notKnownToDiscovery: this.#unknown,
      looks: { ...this.#looks },
    }
  }

  async run(events: PodEvents, signal: AbortSignal): Promise<void> {
    const { log, lookMs, hurryMs } = this.#options
    this.#told.clear()
    this.#expected.clear()
    this.#isSynced = false
    let processes: PodProcesses | undefined
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers()
      try {
        processes ??= new PodProcesses(this.#home())
        this.#look(processes, events)
        this.#complaint = ''
      } catch (err) {
        const complaint = errorText(err)
        if (complaint !== this.#complaint)
          log.error({ err: complaint }, 'cannot look for the processes of pods')
        this.#complaint = complaint
      }
      await pause(SHORTEST_PAUSE_MS, signal)
      await pause(this.#isHurried() ? hurryMs : lookMs, signal, this.#wake.promise)
    }
  }

  /** Not knowing it costs little: no address of a pod is there. */
  #home(): bigint | undefined {
    try {
      return netnsInode(NODE_NETNS)
    } catch (err) {
      this.#options.log.warn({ err: errorText(err) }, "cannot look at the node's own network namespace")
      return undefined
    }
  }

  #look(processes: PodProcesses, events: PodEvents): void {
    const startMs = performance.now()
    const { mesh, log } = this.#options
    const found = processes.look()
    this.#unknown = 0
    for (const [uid, group] of found) this.#find(uid, group, events)
    for (const [uid, told] of this.#told) if (!found.has(uid)) this.#miss(uid, told, events)
    this.#expect(found)
    if (!this.#isSynced && mesh.isSynced) {
      this.#isSynced = true
      log.info({ pods: found.size, known: this.#told.size }, 'pods found through /proc')
      // Those too of which discovery does not tell: they are there.
      void this.#turns.inTurn('', () => events.synced(new Set(found.keys())))
    }
    const lastMs = performance.now() - startMs
    const { count, longestMs } = this.#looks
    this.#looks = { count: count + 1, lastMs, longestMs: Math.max(longestMs, lastMs) }
  }

  #find(uid: string, processes: readonly PodProcess[], events: PodEvents): void {
    const before = this.#told.get(uid)
    if (before) before.missed = 0
    const workload = this.#options.mesh.ownPod(uid)
    if (!workload) this.#unknown++
    const found = workload && !workload.hostNetwork && foundPod(uid, workload, processes, before)
    if (!found) return
    this.#told.set(uid, { ...found, missed: 0, missedSinceMs: 0 })
    if (!isDeepStrictEqual(before?.pod, found.pod))
      void this.#turns.inTurn(uid, () => events.podSeen(found.pod))
  }

  #miss(uid: string, told: Told, events: PodEvents): void {
    const now = performance.now()
    if (told.missed++ === 0) told.missedSinceMs = now
    const isKnown = this.#options.mesh.ownPod(uid) !== undefined
    if (told.missed < GONE_AFTER_LOOKS || (isKnown && now - told.missedSinceMs < GONE_AFTER_MS)) return
    this.#told.delete(uid)
    void this.#turns.inTurn(uid, () => events.podGone(uid))
  }

  #expect(found: ReadonlyMap<string, unknown>): void {
    const before = new Map(this.#expected)
    this.#expected.clear()
    for (const { details, hostNetwork } of this.#options.mesh.ownPods())
      if (details?.enrolment?.mesh && !hostNetwork && !found.has(details.podUid))
        this.#expected.set(details.podUid, before.get(details.podUid) ?? performance.now())
  }

  #isHurried(): boolean {
    return [...this.#expected.values()].some(sinceMs => performance.now() - sinceMs < EXPECTED_MS)
  }
}

/** Ends after the time, with the signal, or with the promise. Never rejects. */
async function pause(ms: number, signal: AbortSignal, early?: Promise<void>): Promise<void> {
  const over = new AbortController()
  const time = sleep(ms, undefined, { signal: AbortSignal.any([signal, over.signal]) }).catch(() => undefined)
  await Promise.race([time, ...(early ? [early] : [])])
  over.abort()
}
