/**
 * Guards the redirection of enrolled pods. The kernel tells of every change to a namespace's nf_tables rules and
 * routing; a change is compared with what should be, put right and reported. What the kernel does not tell of
 * (legacy iptables, listeners, addresses) is looked at in turn, every pod once per round. In between it sleeps.
 *
 * A pod that changes its rules without end must not keep the agent busy: each pod has a few looks at once, then
 * two a second.
 */
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { PORT } from '../ports.ts'
import { applyRedirect, inspectRedirect } from '../redirect/apply.ts'
import type { RedirectSettings } from '../redirect/settings.ts'
import { NamespaceWatch } from '../sys/namespace-watch.ts'
import { listeningSockets } from './listening.ts'
import { LookBudget } from './look-budget.ts'
import { identityFaults, type NamespaceIdentity } from './verify.ts'

export interface DriftEvent {
  readonly podUid: string
  /**
   * One sentence for each thing that was not as it should be, `IPv4 nat: …`; what stands before the colon is one
   * of a few. Empty when what could not be put right before is in order again.
   */
  readonly drift: readonly string[]
  /** From when the agent knew to when the rules stood again; undefined when something could not be put right. */
  readonly repairedInMs: number | undefined
  /** The programs that changed nf_tables rules, as the kernel names them: `iptables (pid 42)`. */
  readonly by: readonly string[]
}

export interface RedirectGuardOptions {
  readonly log: Logger
  readonly onDrift: (event: DriftEvent) => void
  /** How often the kernel is asked for more while there is news, of all pods at once. @default 50 */
  readonly intervalMs?: number
  /** How often each pod is looked at without news. @default 30000 */
  readonly roundMs?: number
}

interface Watched {
  readonly podUid: string
  readonly netnsFd: number
  identity: NamespaceIdentity | undefined
  readonly budget: LookBudget
  settings: RedirectSettings
  /** When news came that nobody has looked at yet. */
  newsAtMs: number | undefined
  by: Set<string>
  isLooking: boolean
  lookedAtMs: number
  /** What the last look found and could not put right. */
  standing: string
}

export class RedirectGuard {
  readonly #options: Required<RedirectGuardOptions>
  readonly #watch = new NamespaceWatch(() => this.#tick())
  readonly #pods = new Map<string, Watched>()
  #timer: NodeJS.Timeout | undefined
  #timerAtMs = Infinity
  #complaint = ''
  #isClosed = false

  /** Throws `SYSCALL`. */
  constructor(options: RedirectGuardOptions) {
    this.#options = { intervalMs: 50, roundMs: 30_000, ...options }
  }

  /**
   * Starts to guard a pod whose rules stand. The descriptor stays the caller's, open until `unwatch`. With an
   * identity the namespace is also checked to be still the pod's. Throws `SYSCALL`.
   */
  watch(podUid: string, netnsFd: number, settings: RedirectSettings, identity?: NamespaceIdentity): void {
    this.unwatch(podUid)
    this.#watch.add(podUid, netnsFd)
    this.#pods.set(podUid, {
      podUid,
      netnsFd,
      identity,
      budget: new LookBudget(),
      settings,
      newsAtMs: performance.now(), // what happened between programming and watching was not announced to us
      by: new Set(),
      isLooking: false,
      lookedAtMs: performance.now(),
      standing: '',
    })
    this.#tickWithin(0)
  }

  /** What should be is another now: the pod is compared with this from here on. Does nothing for one that is not guarded. */
  update(podUid: string, settings: RedirectSettings, identity?: NamespaceIdentity): void {
    const pod = this.#pods.get(podUid)
    if (!pod) return
    pod.settings = settings
    pod.identity = identity ?? pod.identity
    pod.newsAtMs ??= performance.now()
    this.#tickWithin(0)
  }

  /** Call it before the rules are taken away, or they are put back. */
  unwatch(podUid: string): void {
    this.#watch.remove(podUid)
    this.#pods.delete(podUid)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#pods.clear()
    this.#watch.close()
  }

  /** Sees to it that there is a tick at the latest after so long. */
  #tickWithin(ms: number): void {
    const atMs = performance.now() + ms
    if (this.#isClosed || atMs >= this.#timerAtMs) return
    clearTimeout(this.#timer)
    this.#timerAtMs = atMs
    this.#timer = setTimeout(() => this.#tick(), ms)
  }

  #tick(): void {
    if (this.#isClosed) return
    const now = performance.now()
    const { intervalMs, roundMs } = this.#options
    this.#timerAtMs = Infinity
    let nextMs = roundMs
    try {
      for (const { key, by } of this.#watch.poll()) {
        nextMs = intervalMs
        const pod = this.#pods.get(key)
        if (!pod) continue
        pod.newsAtMs ??= now
        for (const author of by) if (pod.by.size < MAX_AUTHORS) pod.by.add(author)
      }
      this.#complaint = ''
    } catch (err) {
      nextMs = Math.min(roundMs, RETRY_MS)
      const complaint = errorText(err)
      if (complaint !== this.#complaint)
        this.#options.log.error(
          { err: complaint },
          'cannot hear of changes to rules; looking at each pod in turn',
        )
      this.#complaint = complaint
    }
    for (const pod of this.#pods.values()) {
      if (pod.isLooking) continue // it calls again when it has looked
      const dueInMs = pod.newsAtMs === undefined ? pod.lookedAtMs + roundMs - now : 0
      if (dueInMs > 0) nextMs = Math.min(nextMs, dueInMs)
      else if (pod.budget.take(now)) void this.#look(pod)
      else nextMs = intervalMs
    }
    this.#tickWithin(nextMs)
  }

  async #look(pod: Watched): Promise<void> {
    const { settings } = pod
    const sinceMs = pod.newsAtMs ?? performance.now()
    const by = [...pod.by]
    pod.newsAtMs = undefined
    pod.by = new Set()
    pod.isLooking = true
    pod.lookedAtMs = performance.now()
    let drift: string[] = []
    try {
      const inspection = await inspectRedirect(pod.netnsFd, settings)
      drift = inspection.drift
      if (!this.#isCurrent(pod, settings)) return
      const beyond = [...inspection.bypasses, ...listenerDrift(pod.netnsFd), ...identityDrift(pod)]
      if (drift.length > 0) await applyRedirect(pod.netnsFd, settings)
      if (!this.#isCurrent(pod, settings)) return
      this.#report(pod, drift, beyond, sinceMs, by)
    } catch (err) {
      if (!this.#isCurrent(pod, settings)) return
      pod.newsAtMs ??= sinceMs // to be tried again
      this.#report(pod, drift, [`inspection: ${errorText(err)}`], sinceMs, by)
    } finally {
      pod.isLooking = false
      this.#tickWithin(pod.newsAtMs === undefined ? this.#options.roundMs : this.#options.intervalMs)
    }
  }

  /** Reports whether the pod is still guarded, with the settings that it was looked at with. */
  #isCurrent(pod: Watched, settings: RedirectSettings): boolean {
    return this.#pods.get(pod.podUid) === pod && pod.settings === settings
  }

  /** `repaired` was put right, `beyond` cannot be: it is told when it is new, and once more when it has gone. */
  #report(pod: Watched, repaired: string[], beyond: string[], sinceMs: number, by: string[]): void {
    const standing = beyond.join('; ')
    const isNews = standing !== pod.standing
    pod.standing = standing
    if (repaired.length === 0 && !isNews) return
    const isRepaired = beyond.length === 0
    try {
      this.#options.onDrift({
        podUid: pod.podUid,
        drift: [...repaired, ...beyond],
        repairedInMs: isRepaired ? Math.round(performance.now() - sinceMs) : undefined,
        by,
      })
    } catch (err) {
      this.#options.log.error({ err: errorText(err) }, 'a report of drift could not be taken')
    }
  }
}

const MAX_AUTHORS = 5
/** After the kernel could not be asked. */
const RETRY_MS = 1000

function listenerDrift(netnsFd: number): string[] {
  const listening = listeningSockets(netnsFd)
  return [PORT.outbound, PORT.inbound, PORT.hbone]
    .filter(port => !listening.has(port))
    .map(port => `listeners: nothing listens on ${port}`)
}

function identityDrift({ netnsFd, identity }: Watched): string[] {
  return identity === undefined ? [] : identityFaults(netnsFd, identity).map(fault => `namespace: ${fault}`)
}
