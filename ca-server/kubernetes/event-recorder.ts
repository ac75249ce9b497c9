/**
 * Kubernetes Events (events.k8s.io/v1), told where people look for them: `kubectl describe pod`. About one object and
 * reason there is one in five minutes; what comes meanwhile is counted, and told as a series at their end. Of all
 * objects together no more than some a second are told. An Event that is not taken is lost, and so is one too many:
 * everything that is told here is also in an annotation, a log or a metric.
 */
import { Backoff } from '../../lib/backoff.ts'
import { systemClock, type Clock } from '../../lib/clock.ts'
import { errorText } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import type { Logger } from '../../lib/log.ts'
import { RateLimit } from '../issuance/rate-limit.ts'
import { LogLimit } from '../log-limit.ts'
import type { Metrics } from '../metrics.ts'
import type { ApiClient } from './api-client.ts'
import { LABELS } from './names.ts'
import { parentOf, path } from './paths.ts'
import { hasStatus, mayPass, waitAfter } from './persist.ts'

/** What an Event is about. */
export interface Subject {
  readonly apiVersion: 'v1'
  readonly kind: 'Pod' | 'Node' | 'Namespace'
  readonly namespace?: string
  readonly name: string
  readonly uid: string
}

export interface Occurrence {
  readonly regarding: Subject
  /** UpperCamelCase, one of a few: machines look for it. */
  readonly reason: string
  /** What was done or tried, one word. */
  readonly action: string
  /** For people. */
  readonly note: string
  /** Times that it happened. @default 1 */
  readonly count?: number
}

export interface EventRecorderOptions {
  readonly api: ApiClient
  /** The replica that tells. */
  readonly instance: string
  readonly metrics: Pick<Metrics, 'events'>
  readonly log: Logger
  readonly signal: AbortSignal
  readonly clock?: Clock
  /** Events of all objects that may be told at once after a quiet time, and each second. */
  readonly rate?: { readonly burst: number; readonly perSecond: number }
}

interface Series {
  readonly key: string
  latest: Occurrence
  /** Since the Event was created; all of them, and those that are told. */
  count: number
  told: number
  /** Of the Event at the API server, once there is one. */
  name: string | undefined
  note: string
  /** When it is looked at again. */
  dueAtMs: number
}

const WINDOW_MS = 300_000
const MOST_SERIES = 10_000
const MOST_WAITING = 200
const TRIES = 3
/** An Event's note may have so much (events.k8s.io/v1). */
const LONGEST_NOTE = 1000
const LIMITS = { silenceMs: 10_000, maxBytes: 256 * 1024 }

export class EventRecorder {
  readonly #options: EventRecorderOptions
  readonly #clock: Clock
  readonly #rate: RateLimit
  readonly #limit: LogLimit
  /** In the order in which they fall due. */
  readonly #series = new Map<string, Series>()
  readonly #waiting: Series[] = []
  #timer: { cancel(): void } | undefined
  #isSending = false
  #lastName = 0

  constructor(options: EventRecorderOptions) {
    const { rate = { burst: 100, perSecond: 5 } } = options
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#rate = new RateLimit({ ...rate, nowMs: () => this.#clock.now() })
    this.#limit = new LogLimit(options.log)
    options.signal.addEventListener('abort', () => this.#timer?.cancel(), { once: true })
  }

  /** Tells now what was not told lately, and counts the rest. */
  tell(occurrence: Occurrence): void {
    if (this.#options.signal.aborted) return
    const { regarding, reason, count = 1 } = occurrence
    const key = `${regarding.uid} ${reason}`
    const present = this.#series.get(key)
    if (present) {
      present.count += count
      present.latest = occurrence
      return
    }
    if (this.#series.size >= MOST_SERIES) this.#series.delete(this.#series.keys().next().value!)
    const dueAtMs = this.#clock.now() + WINDOW_MS
    const series = { key, latest: occurrence, count, told: 0, name: undefined, note: '', dueAtMs }
    this.#series.set(key, series)
    this.#enqueue(series)
    this.#wake()
  }

  #wake(): void {
    if (this.#timer || this.#options.signal.aborted) return
    const [first] = this.#series.values()
    if (!first) return
    this.#timer = this.#clock.after(first.dueAtMs - this.#clock.now(), () => {
      this.#timer = undefined
      this.#due()
      this.#wake()
    })
  }

  /** Tells of what was counted in windows that are over; what has not come again is forgotten. */
  #due(): void {
    const nowMs = this.#clock.now()
    for (const [key, series] of this.#series) {
      if (series.dueAtMs > nowMs) return
      this.#series.delete(key)
      if (series.count === series.told) continue
      series.dueAtMs = nowMs + WINDOW_MS
      this.#series.set(key, series)
      this.#enqueue(series)
    }
  }

  #enqueue(series: Series): void {
    if (this.#waiting.length >= MOST_WAITING || !this.#rate.take('')) {
      this.#options.metrics.events.inc({ result: 'limited' })
      return
    }
    this.#waiting.push(series)
    if (this.#isSending) return
    this.#isSending = true
    void this.#sendAll().then(() => (this.#isSending = false))
  }

  /** Never rejects. */
  async #sendAll(): Promise<void> {
    const { signal, metrics } = this.#options
    for (let series; !signal.aborted && (series = this.#waiting.shift());) {
      const isTold = await this.#persist(series)
      if (!signal.aborted) metrics.events.inc({ result: isTold ? 'told' : 'failed' })
    }
  }

  async #persist(series: Series): Promise<boolean> {
    const { signal } = this.#options
    const backoff = new Backoff({ firstMs: 500, maxMs: 5000 })
    for (let left = TRIES; ;) {
      const { count } = series
      try {
        await this.#send(series, count)
        return true
      } catch (err) {
        if (signal.aborted) return false
        if (!mayPass(err) || --left === 0) {
          // It is not tried again until there is more to tell.
          series.told = count
          this.#complain(series.latest.regarding, err)
          return false
        }
        await waitAfter(err, backoff, signal)
      }
    }
  }

  /** Tells of `count` occurrences since the series' Event was created. */
  async #send(series: Series, count: number): Promise<void> {
    const { latest, told } = series
    const { namespace = 'default', name: object } = latest.regarding
    if (series.name !== undefined && series.note === latest.note) {
      const at = path.event(namespace, series.name)
      const body = { series: this.#seriesOf(count) }
      const isThere = await this.#change('PATCH', at, body).catch((err: unknown) => {
        if (hasStatus(err, 404)) return undefined // Events live an hour
        throw err
      })
      if (isThere !== undefined) {
        series.told = count
        return
      }
    }
    // Another note is another Event; it counts what none has told of.
    const name = this.#nameFor(object)
    const event = this.#eventOf(latest, name, count - told)
    await this.#change('POST', parentOf(path.event(namespace, name)), event)
    series.name = name
    series.note = latest.note
    series.count -= told
    series.told = count - told
  }

  #complain({ namespace = '', name }: Subject, err: unknown): void {
    const object = namespace === '' ? name : `${namespace}/${name}`
    this.#limit.warn('event', { object, err: errorText(err) }, 'event not told')
  }

  #change(method: 'POST' | 'PATCH', at: string, body: object): Promise<unknown> {
    return this.#options.api.change(method, at, body, LIMITS, this.#options.signal)
  }

  #eventOf({ regarding, reason, action, note }: Occurrence, name: string, count: number): object {
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace: regarding.namespace ?? 'default', labels: LABELS },
      eventTime: this.#now(),
      type: 'Warning',
      reason,
      action,
      note: printable(note, LONGEST_NOTE),
      regarding,
      reportingController: 'culvert.dev/ca-server',
      reportingInstance: this.#options.instance,
      ...(count > 1 && { series: this.#seriesOf(count) }),
    }
  }

  #seriesOf(count: number): object {
    return { count, lastObservedTime: this.#now() }
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString().replace('Z', '000Z')
  }

  #nameFor(object: string): string {
    this.#lastName = Math.max(this.#lastName + 1, this.#clock.now() * 1000)
    return `${object.slice(0, 220)}.${this.#lastName.toString(16)}`
  }
}
