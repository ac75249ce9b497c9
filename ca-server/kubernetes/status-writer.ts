/**
 * Writes the annotation `culvert.dev/status` of pods. Of each pod only the last word counts; some are written at a
 * time, and while the API server is away or busy they wait together. What it does not want is dropped: whoever said
 * it says it again within a minute. A pod that is only pending waits a moment, as most are enrolled by then.
 */
import { Backoff } from '../../lib/backoff.ts'
import { ANNOTATION } from '../../lib/enrolment.ts'
import { errorText } from '../../lib/errors.ts'
import type { KubePod } from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'
import { LogLimit } from '../log-limit.ts'
import type { Metrics } from '../metrics.ts'
import type { StatusAnnotations } from '../reports/annotation.ts'
import type { ApiClient } from './api-client.ts'
import { path } from './paths.ts'
import { hasStatus, mayPass, waitAfter } from './persist.ts'

export interface StatusWriterOptions {
  readonly api: ApiClient
  readonly metrics: Pick<Metrics, 'statusWrites'>
  readonly log: Logger
  readonly signal: AbortSignal
  /** How long a status may wait that was put with `mayWait`, milliseconds. @default 1000 */
  readonly patienceMs?: number
  /** Pods that may wait to be written. @default 100000 */
  readonly mostWaiting?: number
  /** How long to wait until a watch tells of what was written, milliseconds. @default 10000 */
  readonly echoMs?: number
}

interface Word {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** Undefined: the annotation is to go. */
  readonly text: string | undefined
  /** When it may be written. */
  readonly dueAtMs: number
  /** Times that it met somebody else's write. */
  conflicts: number
}

/** What was written, and has not come back to us. */
interface Expected {
  readonly text: string | undefined
  /** It may never come: a watch that begins anew tells only what is so then. */
  readonly untilMs: number
}

const LIMITS = { silenceMs: 10_000, maxBytes: 4 * 1024 * 1024 }
const AT_ONCE = 8
const MOST_CONFLICTS = 3

export class StatusWriter implements StatusAnnotations {
  readonly #options: Required<StatusWriterOptions>
  readonly #limit: LogLimit
  readonly #backoff = new Backoff({ firstMs: 200, maxMs: 15_000 })
  /** By uid: due ones. */
  readonly #due = new Map<string, Word>()
  /** By uid, those that are not due yet, in the order in which they will be. */
  readonly #later = new Map<string, Word>()
  readonly #inFlight = new Map<string, Word>()
  /** By uid, the oldest first. */
  readonly #expected = new Map<string, Expected>()
  readonly #listeners = new Set<(podUid: string) => void>()
  #timer: NodeJS.Timeout | undefined
  #expiry: NodeJS.Timeout | undefined
  #isPaused = false

  constructor(options: StatusWriterOptions) {
    this.#options = { patienceMs: 1000, mostWaiting: 100_000, echoMs: 10_000, ...options }
    this.#limit = new LogLimit(options.log)
    const stop = (): void => {
      clearTimeout(this.#timer)
      clearTimeout(this.#expiry)
    }
    options.signal.addEventListener('abort', stop, { once: true })
  }

  /** Pods whose status is still to be written. */
  get waiting(): number {
    return this.#due.size + this.#later.size + this.#inFlight.size
  }

  /**
   * The pod's annotation is to be this text, or to go. `mayWait`: it need not be at once. Costs nothing when that is
   * what stands there, or what is being written.
   */
  put(pod: KubePod, text: string | undefined, mayWait = false): void {
    const { uid, namespace = '', name } = pod.metadata
    const { mostWaiting, patienceMs, metrics } = this.#options
    const waiting = this.#due.get(uid) ?? this.#later.get(uid)
    if (waiting && waiting.text === text) return
    this.#due.delete(uid)
    this.#later.delete(uid)
    const known = this.#inFlight.get(uid) ?? this.#expected.get(uid) ?? { text: pod.status.mesh }
    if (known.text === text) return
    if (this.waiting >= mostWaiting) {
      metrics.statusWrites.inc({ result: 'dropped' })
      return
    }
    const nowMs = performance.now()
    const word = { uid, namespace, name, text, dueAtMs: mayWait ? nowMs + patienceMs : nowMs, conflicts: 0 }
    if (mayWait) this.#later.set(uid, word)
    else this.#due.set(uid, word)
    this.#next()
  }

  /** Reports whether what stands in this pod's annotation is older than what was written since, or is about to be. */
  isOutdated({ metadata: { uid }, status }: KubePod): boolean {
    if (this.#due.has(uid) || this.#later.has(uid) || this.#inFlight.has(uid)) return true
    const expected = this.#expected.get(uid)
    if (expected === undefined) return false
    if (expected.text !== status.mesh) return true
    this.#expected.delete(uid)
    return false
  }

  /** Calls the listener when a pod's annotation was written, and when that has been waited for in vain. */
  onSettled(listener: (podUid: string) => void): void {
    this.#listeners.add(listener)
  }

  /** The pod is gone. */
  forget(uid: string): void {
    this.#due.delete(uid)
    this.#later.delete(uid)
    this.#expected.delete(uid)
  }

  #next(): void {
    const { signal } = this.#options
    if (signal.aborted || this.#isPaused) return
    const nowMs = performance.now()
    for (const [uid, word] of this.#later) {
      if (word.dueAtMs > nowMs) {
        this.#timer ??= setTimeout(() => {
          this.#timer = undefined
          this.#next()
        }, word.dueAtMs - nowMs)
        break
      }
      this.#later.delete(uid)
      this.#due.set(uid, word)
    }
    for (const [uid, word] of this.#due) {
      if (this.#inFlight.size >= AT_ONCE) return
      if (this.#inFlight.has(uid)) continue // one after the other, or the older one may come last
      this.#due.delete(uid)
      this.#inFlight.set(uid, word)
      void this.#write(word).then(isWritten => {
        this.#inFlight.delete(uid)
        if (isWritten) this.#settled(uid)
        this.#next()
      })
    }
  }

  /** Reports whether it is written. Never rejects. */
  async #write(word: Word): Promise<boolean> {
    const { api, metrics, signal } = this.#options
    const { uid, namespace, name, text } = word
    // With the uid, so that nothing is said of a pod that has only the name.
    const body = { metadata: { uid, annotations: { [ANNOTATION.status]: text ?? null } } }
    try {
      await api.change('PATCH', path.pod(namespace, name), body, LIMITS, signal)
      this.#expect(uid, text)
      this.#backoff.reset()
      metrics.statusWrites.inc({ result: 'written' })
      return true
    } catch (err) {
      if (!signal.aborted) await this.#failed(word, err)
      return false
    }
  }

  #expect(uid: string, text: string | undefined): void {
    this.#expected.delete(uid)
    this.#expected.set(uid, { text, untilMs: performance.now() + this.#options.echoMs })
    this.#expiry ??= setTimeout(() => this.#expire(), this.#options.echoMs)
  }

  #expire(): void {
    const nowMs = performance.now()
    this.#expiry = undefined
    for (const [uid, { untilMs }] of this.#expected) {
      if (untilMs > nowMs) {
        this.#expiry = setTimeout(() => this.#expire(), untilMs - nowMs)
        return
      }
      this.#expected.delete(uid)
      this.#settled(uid)
    }
  }

  #settled(uid: string): void {
    for (const listener of this.#listeners) listener(uid)
  }

  async #failed(word: Word, err: unknown): Promise<void> {
    const { metrics, signal } = this.#options
    const isConflict = hasStatus(err, 409) && ++word.conflicts < MOST_CONFLICTS
    if (isConflict || mayPass(err)) {
      metrics.statusWrites.inc({ result: 'failed' })
      const isNewer = this.#due.has(word.uid) || this.#later.has(word.uid)
      if (!isNewer) this.#due.set(word.uid, word)
      if (isConflict || this.#isPaused) return
      this.#isPaused = true
      this.#warn('status-busy', word, err, 'status of pods not written, trying again')
      await waitAfter(err, this.#backoff, signal)
      this.#isPaused = false
      return
    }
    metrics.statusWrites.inc({ result: 'dropped' })
    // A pod that has gone, or another one of that name, is nothing to speak of.
    if (!hasStatus(err, 404) && !hasStatus(err, 409))
      this.#warn('status-refused', word, err, 'status of pod not written')
  }

  #warn(kind: string, { namespace, name, uid }: Word, err: unknown, message: string): void {
    this.#limit.warn(kind, { pod: `${namespace}/${name}`, pod_uid: uid, err: errorText(err) }, message)
  }
}
