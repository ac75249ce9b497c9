/**
 * What a data-plane thread counts of connections. The main thread is told sums and not connections: a series, which is
 * what two workloads have with each other, is described to it once and is a number from then on. Nothing is made for
 * a connection here but for the first of its series. A peer chooses whom it talks to, so the series are bounded: those
 * of which nothing is open are let go, and beyond the cap newcomers are counted together.
 */
import { systemClock, type Clock } from '../../lib/clock.ts'
import type { Reason } from '../../lib/reasons.ts'
import type {
  ConnectionRecord,
  EndCount,
  TrafficChange,
  TrafficEnd,
  TrafficLabels,
  TrafficReport,
} from './messages.ts'
import { responseFlag, type ResponseFlag } from './response-flags.ts'

/** One series, and what has not been told of it yet. */
export interface Series {
  readonly id: number
  readonly labels: TrafficLabels
  opened: number
  closed: number
  failed: number
  received: number
  sent: number
  open: number
  /** The main thread knows its labels. */
  isKnown: boolean
  /** It is among those to be told of. */
  isChanged: boolean
}

/** A connection that knows what it is counted under while it is open. */
export interface Counted extends ConnectionRecord {
  series?: Series | undefined
}

export interface TrafficOptions {
  /** @default 10000 */
  mostSeries?: number
  clock?: Clock
}

/** With so many series or codes to tell of, a report is worth a message. */
const MOST_CHANGES = 512
const MOST_CODES = 64
/** Room is not looked for more often, ms: every series is looked at then. */
const LOOK_EVERY_MS = 1000

type Direction = ConnectionRecord['direction']
/** By the workloads of both ends and the service's host name: few are left under these. */
type Index = ByName<ByName<ByName<Series[]>>>
type ByName<T> = Map<string | undefined, T>

export class Traffic {
  readonly #mostSeries: number
  readonly #clock: Clock
  #index: Index = new Map()
  #series: Series[] = []
  /** For those for whom there was no room, by direction, flag and policy. */
  readonly #others = new Map<string, Series>()
  #lastId = 0
  #lookedAtMs = -Infinity
  #changed: Series[] = []
  #forgotten: number[] = []
  readonly #reasons = { outbound: new Map<Reason, number>(), inbound: new Map<Reason, number>() }
  readonly #errors = {
    outbound: new Map<string | undefined, number>(),
    inbound: new Map<string | undefined, number>(),
  }

  constructor({ mostSeries = 10_000, clock = systemClock }: TrafficOptions = {}) {
    this.#mostSeries = mostSeries
    this.#clock = clock
  }

  /** Series that are kept, without those for whom there was no room. */
  get size(): number {
    return this.#series.length
  }

  /** There is so much to tell that it should not wait. */
  get isFull(): boolean {
    const { outbound, inbound } = this.#errors
    return this.#changed.length >= MOST_CHANGES || outbound.size + inbound.size >= MOST_CODES
  }

  /** A connection is carried from here on. */
  opened(connection: Counted): void {
    const series = this.#changing(this.#find(connection, '-'))
    series.opened++
    series.open++
    connection.series = series
  }

  /** Counts the end of a connection, and its beginning too when it was never carried. */
  closed(connection: Counted): void {
    const { direction, reason, error, errorCode, series: begun } = connection
    const flag = responseFlag(reason, errorCode)
    let series: Series
    if (begun) {
      this.#changing(begun).open--
      connection.series = undefined
      series = isUnder(begun.labels, connection, flag) ? begun : this.#find(connection, flag)
    } else {
      series = this.#find(connection, flag)
      series.opened++
    }
    this.#changing(series).closed++
    series.received += connection.bytesSent
    series.sent += connection.bytesReceived
    increment(this.#reasons[direction], reason)
    if (error === undefined) return
    series.failed++
    increment(this.#errors[direction], errorCode)
  }

  /** What has been counted since the last call; undefined when nothing was. */
  take(): TrafficReport | undefined {
    if (this.#changed.length === 0 && this.#forgotten.length === 0) return undefined
    const report = {
      changes: this.#changed.map(told),
      reasons: takeCounts(this.#reasons),
      errors: takeCounts(this.#errors),
      forgotten: this.#forgotten,
    }
    this.#changed = []
    this.#forgotten = []
    return report
  }

  /** Lets go of every series that has nothing open and nothing to tell: it costs no more than to be described again. */
  letGo(): void {
    const kept: Series[] = []
    for (const series of this.#series)
      if (series.open > 0 || series.isChanged) kept.push(series)
      else this.#forgotten.push(series.id)
    if (kept.length === this.#series.length) return
    this.#series = kept
    this.#index = new Map()
    for (const series of kept) this.#insert(series)
  }

  #find(connection: ConnectionRecord, flag: ResponseFlag): Series {
    const { source, destination, service } = connection
    const few = this.#index.get(source.workload)?.get(destination.workload)?.get(service?.hostname)
    if (few) for (const series of few) if (isUnder(series.labels, connection, flag)) return series
    if (!this.#hasRoom()) return this.#other(connection, flag)
    const series = this.#make(labelsOf(connection, flag))
    this.#series.push(series)
    this.#insert(series)
    return series
  }

  #hasRoom(): boolean {
    if (this.#series.length < this.#mostSeries) return true
    const nowMs = this.#clock.now()
    if (Math.abs(nowMs - this.#lookedAtMs) < LOOK_EVERY_MS) return false
    this.#lookedAtMs = nowMs
    this.letGo()
    return this.#series.length < this.#mostSeries
  }

  #other({ direction, reason }: ConnectionRecord, flag: ResponseFlag): Series {
    const isMutual = reason === 'mtls'
    const key = `${direction} ${flag} ${isMutual}`
    const present = this.#others.get(key)
    if (present) return present
    const series = this.#make({ direction, source: {}, destination: {}, isMutual, flag, isOther: true })
    this.#others.set(key, series)
    return series
  }

  #make(labels: TrafficLabels): Series {
    return {
      id: ++this.#lastId,
      labels,
      opened: 0,
      closed: 0,
      failed: 0,
      received: 0,
      sent: 0,
      open: 0,
      isKnown: false,
      isChanged: false,
    }
  }

  #insert(series: Series): void {
    const { source, destination, service } = series.labels
    const byDestination = branch(this.#index, source.workload)
    const byService = branch(byDestination, destination.workload)
    const few = byService.get(service?.hostname)
    if (few) few.push(series)
    else byService.set(service?.hostname, [series])
  }

  #changing(series: Series): Series {
    if (series.isChanged) return series
    series.isChanged = true
    this.#changed.push(series)
    return series
  }
}

/** Tells what has become of a series, which begins anew. */
function told(series: Series): TrafficChange {
  const { id, labels, opened, closed, failed, received, sent, open, isKnown } = series
  series.opened = series.closed = series.failed = series.received = series.sent = 0
  series.isKnown = true
  series.isChanged = false
  return { id, labels: isKnown ? undefined : labels, opened, closed, failed, received, sent, open }
}

function labelsOf(connection: ConnectionRecord, flag: ResponseFlag): TrafficLabels {
  const { direction, reason, source, destination, service } = connection
  const isMutual = reason === 'mtls'
  const endOf = ({ workload, namespace, identity, cluster }: TrafficEnd): TrafficEnd => {
    return { workload, namespace, identity: isMutual ? identity : undefined, cluster }
  }
  return {
    direction,
    source: endOf(source),
    destination: endOf(destination),
    service,
    isMutual,
    flag,
    isOther: false,
  }
}

/** Reports whether these are the labels that `labelsOf` would give. */
function isUnder(labels: TrafficLabels, connection: ConnectionRecord, flag: ResponseFlag): boolean {
  const { direction, reason, source, destination, service } = connection
  const isMutual = reason === 'mtls'
  return (
    !labels.isOther &&
    labels.flag === flag &&
    labels.isMutual === isMutual &&
    labels.direction === direction &&
    isEnd(labels.source, source, isMutual) &&
    isEnd(labels.destination, destination, isMutual) &&
    labels.service?.hostname === service?.hostname &&
    labels.service?.name === service?.name &&
    labels.service?.namespace === service?.namespace
  )
}

function isEnd(known: TrafficEnd, end: TrafficEnd, isMutual: boolean): boolean {
  return (
    known.workload === end.workload &&
    known.namespace === end.namespace &&
    known.cluster === end.cluster &&
    (!isMutual || known.identity === end.identity)
  )
}

function increment<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

function takeCounts<W>(counts: Record<Direction, Map<W, number>>): EndCount<W>[] {
  const all: EndCount<W>[] = []
  for (const direction of ['outbound', 'inbound'] as const) {
    for (const [word, count] of counts[direction]) all.push({ direction, word, count })
    counts[direction].clear()
  }
  return all
}

function branch<T>(tree: ByName<ByName<T>>, name: string | undefined): ByName<T> {
  const present = tree.get(name)
  if (present) return present
  const made: ByName<T> = new Map()
  tree.set(name, made)
  return made
}
