/**
 * The `istio_tcp_*` counters: one series for each pair of workloads that talk, summed up from what the data-plane threads
 * report of theirs. Peers choose who they talk to, so the number of series is bounded here: one that was idle for ten
 * minutes and has nothing open goes, and beyond the cap newcomers are counted together under `other`. A label set is
 * rendered once and kept as text: a scrape only joins strings.
 */
import { systemClock, type Clock } from '../../lib/clock.ts'
import type { TrafficChange, TrafficLabels, TrafficReport } from '../worker/messages.ts'

export interface TrafficSeriesOptions {
  /** @default 10000 */
  mostSeries?: number
  /** @default 600000 */
  idleMs?: number
  clock?: Clock
}

interface Series {
  readonly key: string
  /** `name="value",…` */
  readonly labels: string
  opened: number
  closed: number
  failed: number
  received: number
  sent: number
  /** Connections that are open now: as long as there are any, the series stays. */
  open: number
  usedAtMs: number
  /** False for those that share `other`, and for one that has gone. */
  isKept: boolean
}

/** What a thread means by one of its numbers. */
interface Known {
  readonly labels: TrafficLabels
  series: Series
  /** Of this thread's connections. */
  open: number
}

// In the order of the field's own exposition. What only a Deployment's labels would tell is unknown to an agent.
const LABELS = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
  'request_protocol',
  'response_flags',
  'connection_security_policy',
] as const

const METRICS = [
  ['istio_tcp_connections_opened_total', 'TCP connections that were opened', 'opened'],
  ['istio_tcp_connections_closed_total', 'TCP connections that were closed', 'closed'],
  ['istio_tcp_connections_failed_total', 'TCP connections that failed', 'failed'],
  ['istio_tcp_received_bytes_total', 'Bytes that clients sent to servers', 'received'],
  ['istio_tcp_sent_bytes_total', 'Bytes that servers sent to clients', 'sent'],
] as const

const UNKNOWN = 'unknown'
const OTHER = 'other'
const LONGEST_VALUE = 256 // characters; Kubernetes names are shorter
/** Idle series that may be passed over because something is still open, before the cap is taken as reached. */
const MOST_PASSED_OVER = 16

export class TrafficSeries {
  readonly #options: Required<TrafficSeriesOptions>
  // In order of use: the first is the one that was idle longest.
  readonly #series = new Map<string, Series>()
  readonly #overflow = new Map<string, Series>()
  /** By thread, then by the thread's own number for it: as many as the threads keep, who say what they let go. */
  readonly #known = new Map<number, Map<number, Known>>()
  #open = 0
  #folded = 0

  constructor(options: TrafficSeriesOptions = {}) {
    this.#options = { mostSeries: 10_000, idleMs: 600_000, clock: systemClock, ...options }
  }

  /** Series that are kept, without those for `other`. */
  get size(): number {
    return this.#series.size
  }

  /** Connections that were counted under `other`. */
  get folded(): number {
    return this.#folded
  }

  /** Connections that are open now. */
  get open(): number {
    return this.#open
  }

  /** Adds what a thread has counted since its last report. */
  take(thread: number, { changes, forgotten }: Pick<TrafficReport, 'changes' | 'forgotten'>): void {
    const known = this.#known.get(thread) ?? new Map<number, Known>()
    this.#known.set(thread, known)
    for (const change of changes) this.#change(known, change)
    for (const id of forgotten) known.delete(id)
  }

  /** Nothing more will be heard of a thread's open connections. */
  threadGone(thread: number): void {
    for (const one of this.#known.get(thread)?.values() ?? []) {
      one.series.closed += one.open
      this.#setOpen(one, 0)
    }
    this.#known.delete(thread)
  }

  /** In the Prometheus text format. Lets go of idle series first. */
  text(): string {
    this.#evictIdle()
    const all = [...this.#series.values(), ...this.#overflow.values()]
    const lines: string[] = []
    for (const [name, help, field] of METRICS) {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} counter`)
      for (const series of all) lines.push(`${name}{${series.labels}} ${series[field]}`)
    }
    return `${lines.join('\n')}\n`
  }

  #change(known: Map<number, Known>, change: TrafficChange): void {
    const { labels, opened, closed, failed, received, sent, open } = change
    let one = known.get(change.id)
    if (labels) {
      one = { labels, series: this.#find(labels), open: 0 }
      known.set(change.id, one)
    }
    if (!one) return
    const series = this.#used(one)
    series.opened += opened
    series.closed += closed
    series.failed += failed
    series.received += received
    series.sent += sent
    this.#setOpen(one, open)
    if (!series.isKept) this.#folded += opened
  }

  /** The series to count in; for one that had to share or has gone there may be room meanwhile. */
  #used(one: Known): Series {
    if (one.series.isKept) return this.#touch(one.series)
    const { open } = one
    this.#setOpen(one, 0)
    one.series = this.#find(one.labels)
    this.#setOpen(one, open)
    return one.series
  }

  #setOpen(one: Known, open: number): void {
    one.series.open += open - one.open
    this.#open += open - one.open
    one.open = open
  }

  #touch(series: Series): Series {
    series.usedAtMs = this.#options.clock.now()
    this.#series.delete(series.key)
    this.#series.set(series.key, series)
    return series
  }

  #find(labels: TrafficLabels): Series {
    const values = labelValues(labels)
    if (labels.isOther) return this.#other(values)
    const key = values.join('\u0000')
    const present = this.#series.get(key)
    if (present) return this.#touch(present)
    if (this.#series.size >= this.#options.mostSeries && !this.#evictOne()) return this.#other(values)
    const series = newSeries(key, values, this.#options.clock.now(), true)
    this.#series.set(key, series)
    return series
  }

  /** The series of everyone who came too late; one for each reporter, flag and security policy. */
  #other(values: readonly string[]): Series {
    const folded = values.map((value, at) => {
      const label = LABELS[at]!
      return label.startsWith('source_') || label.startsWith('destination_') ? OTHER : value
    })
    const key = folded.join('\u0000')
    const present = this.#overflow.get(key)
    if (present) return present
    const series = newSeries(key, folded, this.#options.clock.now(), false)
    this.#overflow.set(key, series)
    return series
  }

  #evictIdle(): void {
    const before = this.#options.clock.now() - this.#options.idleMs
    for (const series of this.#series.values()) {
      if (series.usedAtMs > before) return
      if (series.open === 0) this.#letGo(series)
    }
  }

  /** Makes room for one, if one of those idle longest may go. */
  #evictOne(): boolean {
    const before = this.#options.clock.now() - this.#options.idleMs
    let looked = 0
    for (const series of this.#series.values()) {
      if (series.usedAtMs > before || ++looked > MOST_PASSED_OVER) return false
      if (series.open > 0) continue
      this.#letGo(series)
      return true
    }
    return false
  }

  #letGo(series: Series): void {
    series.isKept = false
    this.#series.delete(series.key)
  }
}

function newSeries(key: string, values: readonly string[], nowMs: number, isKept: boolean): Series {
  const labels = LABELS.map((name, at) => `${name}="${escapeLabel(values[at]!)}"`).join(',')
  return {
    key,
    labels,
    opened: 0,
    closed: 0,
    failed: 0,
    received: 0,
    sent: 0,
    open: 0,
    usedAtMs: nowMs,
    isKept,
  }
}

/** In the order of LABELS. */
function labelValues({ direction, source, destination, service, isMutual, flag }: TrafficLabels): string[] {
  const from = value(source.workload)
  const to = value(destination.workload)
  return [
    direction === 'outbound' ? 'source' : 'destination',
    from,
    from,
    UNKNOWN,
    value(source.namespace),
    value(source.identity),
    UNKNOWN,
    UNKNOWN,
    value(source.cluster),
    value(service?.hostname),
    value(service?.namespace),
    value(service?.name),
    to,
    to,
    UNKNOWN,
    value(destination.namespace),
    value(destination.identity),
    UNKNOWN,
    UNKNOWN,
    value(destination.cluster),
    'tcp',
    flag,
    isMutual ? 'mutual_tls' : UNKNOWN,
  ]
}

const PLAIN = new RegExp(`^[\\x20-\\x7e]{1,${LONGEST_VALUE}}$`)

/** Two names that differ must not become one label afterwards: a scrape with a series twice is refused as a whole. */
function value(text: string | undefined): string {
  if (!text) return UNKNOWN
  if (PLAIN.test(text)) return text
  return text.slice(0, LONGEST_VALUE).replace(/[^\x20-\x7e]/g, '?')
}

/** As the Prometheus text format wants it. */
function escapeLabel(text: string): string {
  return text.replace(/[\\"]/g, '\\$&')
}
