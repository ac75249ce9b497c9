/**
 * Tells the ca-server what became of each pod of the node. It sends what changed a few milliseconds after it changed, and
 * everything on each new connection, after a failure and once a minute, so that a lost word never stays lost. One call at a time.
 * What happened to pods (notices.ts) goes along, or by itself when it has waited for some seconds.
 * A server without the service (an istiod) is told nothing more.
 *
 * A report that claims to name every pod makes the server take the others for not enrolled, and their peers then talk to
 * them in the clear. So nothing is claimed before `complete()`: an agent that has just started does not know its pods yet.
 */
import { Code, ConnectError } from '@connectrpc/connect'
import { Backoff } from '../../lib/backoff.ts'
import { systemClock, type Clock } from '../../lib/clock.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { RefusalCount } from '../worker/refusals.ts'
import { Notices } from './notices.ts'
import { sendReport, type ReportCall, type ReportedPod, type Word } from './report-call.ts'

export { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'

export interface ReportClientOptions extends Omit<ReportCall, 'timeoutMs'> {
  log: Logger
  clock?: Clock
  /** How long changes are gathered. @default 5 */
  gatherMs?: number
  /** How long what happened to pods is gathered. @default 10000 */
  noticesMs?: number
  /** Between full reports. @default 60000 */
  fullEveryMs?: number
  /** For one call. @default 10000 */
  timeoutMs?: number
}

const MOST_DETAIL = 1024

export class ReportClient {
  readonly #options: Required<ReportClientOptions>
  /** What holds now. */
  readonly #pods = new Map<string, Word>()
  /** What the server has not heard yet, gone pods included. */
  #unsaid = new Map<string, Word>()
  readonly #notices: Notices
  #changes = 0
  #acknowledged = 0
  #isWanted = true
  #isRepeatWanted = false
  #isComplete = false
  #wake = Promise.withResolvers<void>()
  /** Ends the pause after a failure. */
  #hurry = Promise.withResolvers<void>()
  readonly #flushes = new Set<{ upTo: number; resolve: () => void }>()

  constructor(options: ReportClientOptions) {
    this.#options = {
      clock: systemClock,
      gatherMs: 5,
      noticesMs: 10_000,
      fullEveryMs: 60_000,
      timeoutMs: 10_000,
      ...options,
    }
    this.#notices = new Notices(this.#options.noticesMs)
  }

  /** What a pod is now; `detail` is for people. Saying the same again costs nothing. */
  set(pod: ReportedPod, state: PodState, detail = ''): void {
    const present = this.#pods.get(pod.uid)
    const short = detail.slice(0, MOST_DETAIL)
    if (present?.state === state && present.detail === short) return
    const { uid, namespace, name } = pod
    const word = { uid, namespace, name, state, detail: short, observedAtMs: this.#options.clock.now() }
    this.#pods.set(uid, word)
    this.#changed(word)
  }

  /** The pod is gone, or is no longer the agent's. */
  remove(uid: string): void {
    const present = this.#pods.get(uid)
    if (!present) return
    this.#pods.delete(uid)
    this.#changed({
      ...present,
      state: PodState.NOT_ENROLLED,
      detail: '',
      observedAtMs: this.#options.clock.now(),
    })
  }

  /** Connections of pods were refused. */
  refused(refusals: readonly RefusalCount[]): void {
    if (!this.#isWanted) return
    this.#noticed(() => this.#notices.refused(refusals, this.#options.clock.now()))
  }

  /** Rules of a pod were found changed, by these programs if it is known, and put right. */
  repaired(podUid: string, what: string, by: string): void {
    if (!this.#isWanted) return
    const repair = { podUid, what: what.slice(0, MOST_DETAIL), by: by.slice(0, MOST_DETAIL), count: 1 }
    this.#noticed(() => this.#notices.repaired(repair, this.#options.clock.now()))
  }

  /**
   * Ends when the server has acknowledged everything that was said until now, or does not take reports at all.
   * Rejects with `TIMEOUT`.
   */
  async flush(timeoutMs = 5000): Promise<void> {
    if (!this.#isWanted || this.#acknowledged >= this.#changes) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const flush = { upTo: this.#changes, resolve }
    this.#flushes.add(flush)
    const { peer } = this.#options.channel
    const timer = this.#options.clock.after(timeoutMs, () =>
      reject(new CulvertError('TIMEOUT', `${peer} did not acknowledge the report within ${timeoutMs} ms`)),
    )
    try {
      await promise
    } finally {
      timer.cancel()
      this.#flushes.delete(flush)
    }
  }

  /** From now on the pods that were set are all there are: call it when the pod source has told everything. */
  complete(): void {
    if (this.#isComplete) return
    this.#isComplete = true
    this.#changes++
    this.repeat()
  }

  /** Tells everything again now, whatever failed before: call it when the ca-server is known to be back. */
  repeat(): void {
    this.#isRepeatWanted = true
    this.#hurry.resolve()
    this.#wake.resolve()
  }

  /** Reports until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { fullEveryMs, gatherMs, log, channel, clock } = this.#options
    const failures = new Backoff({ firstMs: 100, maxMs: 15_000 })
    // A pod that the server does not know yet is told again: its own view may lag behind ours.
    const unknown = new Backoff({ firstMs: 1000, maxMs: fullEveryMs })
    let nextFullAtMs = 0
    let connections = 0
    while (!signal.aborted) {
      const upTo = this.#changes
      const said = this.#unsaid
      const isFull = this.#isRepeatWanted || clock.now() >= nextFullAtMs
      const areNoticesDue = clock.now() >= this.#notices.dueAtMs
      this.#isRepeatWanted = false
      this.#unsaid = new Map()
      this.#wake = Promise.withResolvers()
      this.#hurry = Promise.withResolvers()
      const words = isFull ? this.#everything(said) : said
      const claimsAll = isFull && this.#isComplete
      const isSending = claimsAll || words.size > 0 || areNoticesDue
      const notices = isSending ? this.#notices.take() : undefined
      try {
        const unknownPods = notices
          ? await sendReport(this.#options, { words: words.values(), full: claimsAll, notices }, signal)
          : 0
        failures.reset()
        if (isFull) nextFullAtMs = clock.now() + fullEveryMs
        // Whoever answers on a new connection may not have heard what the one before was told.
        else if (channel.connections !== connections) nextFullAtMs = 0
        connections = channel.connections
        if (unknownPods > 0) nextFullAtMs = Math.min(nextFullAtMs, clock.now() + unknown.next())
        else if (isFull) unknown.reset()
        this.#acknowledge(upTo)
      } catch (err) {
        if (signal.aborted) return
        if (err instanceof ConnectError && err.code === Code.Unimplemented) return this.#goQuiet()
        nextFullAtMs = 0
        this.#unsaid = new Map([...said, ...this.#unsaid])
        if (notices) this.#notices.putBack(notices, clock.now())
        const waitMs = failures.next()
        log.warn({ peer: channel.peer, error: errorText(err), retry_ms: waitMs }, 'report failed')
        await this.#sleep(waitMs, signal, this.#hurry.promise)
        continue
      }
      await this.#sleep(
        Math.min(nextFullAtMs, this.#notices.dueAtMs) - clock.now(),
        signal,
        this.#wake.promise,
      )
      await this.#sleep(gatherMs, signal)
    }
  }

  #noticed(note: () => void): void {
    const dueAtMs = this.#notices.dueAtMs
    note()
    if (this.#notices.dueAtMs !== dueAtMs) this.#wake.resolve()
  }

  #changed(word: Word): void {
    if (!this.#isWanted) return
    this.#changes++
    this.#unsaid.set(word.uid, word)
    this.#wake.resolve()
  }

  /** What holds, and who is gone since the last report. */
  #everything(said: ReadonlyMap<string, Word>): Map<string, Word> {
    return new Map([...said, ...this.#pods])
  }

  #acknowledge(upTo: number): void {
    this.#acknowledged = upTo
    for (const flush of this.#flushes) if (flush.upTo <= upTo) flush.resolve()
  }

  #goQuiet(): void {
    const { log, channel } = this.#options
    log.info(
      { peer: channel.peer },
      'the server takes no reports: what this node observes stays in its metrics and log',
    )
    this.#isWanted = false
    this.#unsaid.clear()
    this.#notices.take()
    this.#acknowledge(this.#changes)
  }

  /** Waits, shorter when the signal aborts or something wakes it. */
  async #sleep(delayMs: number, signal: AbortSignal, wake?: Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = this.#options.clock.after(delayMs, resolve)
    const onAbort = () => resolve()
    if (signal.aborted) resolve()
    signal.addEventListener('abort', onAbort, { once: true })
    await (wake ? Promise.race([promise, wake]) : promise)
    signal.removeEventListener('abort', onAbort)
    timer.cancel()
  }
}
