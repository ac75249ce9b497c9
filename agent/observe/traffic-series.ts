/**
 * The `istio_tcp_*` counters: one series for each pair of workloads that talk. Peers choose who they talk to, so the
 * number of series is bounded here: one that was idle for ten minutes and has nothing open goes, and beyond the cap
 * newcomers are counted together under `other`. A label set is rendered once and kept as text: a scrape only joins
 * strings.
 */
import { systemClock, type Clock } from '../../lib/clock.ts'
import type { ConnectionRecord } from '../worker/messages.ts'
import { responseFlag } from './response-flags.ts'

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
// Thread numbers and connection numbers share one key.
const IDS_PER_THREAD = 2 ** 40

export class TrafficSeries {
  readonly #options: Required<TrafficSeriesOptions>
  // In order of use: the first is the one that was idle longest.
  readonly #series = new Map<string, Series>()
  readonly #overflow = new Map<string, Series>()
  readonly #openConnections = new Map<number, Series>()
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
    return this.#openConnections.size
  }

  opened(record: ConnectionRecord, thread: number): void {
    const id = thread * IDS_PER_THREAD + record.id
    if (this.#openConnections.has(id)) return
    const series = this.#find(record, '-')
    series.opened++
    series.open++
    this.#openConnections.set(id, series)
  }

  /** Counts the end of a connection, and its beginning too when that was never told (it was refused at once). */
  closed(record: ConnectionRecord, thread: number): void {
    const id = thread * IDS_PER_THREAD + record.id
    const begun = this.#openConnections.get(id)
    this.#openConnections.delete(id)
    if (begun) begun.open--
    const series = this.#find(record, responseFlag(record))
    if (!begun) series.opened++
    series.closed++
    // Received and sent are the server's words for it, whichever side reports.
    series.received += record.bytesSent
    series.sent += record.bytesReceived
    if (record.error !== undefined) series.failed++
  }

  /** Nothing more will be heard of a thread's open connections. */
  threadGone(thread: number): void {
    for (const [id, series] of this.#openConnections) {
      if (Math.floor(id / IDS_PER_THREAD) !== thread) continue
      this.#openConnections.delete(id)
      series.open--
      series.closed++
    }
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

  #find(record: ConnectionRecord, flag: string): Series {
    const values = labelValues(record, flag)
    const key = values.join('\u0000')
    const nowMs = this.#options.clock.now()
    const present = this.#series.get(key)
    if (present) {
      present.usedAtMs = nowMs
      this.#series.delete(key)
      this.#series.set(key, present)
      return present
    }
    if (this.#series.size >= this.#options.mostSeries && !this.#evictOne()) {
      this.#folded++
      return this.#other(values)
    }
    const series = newSeries(key, values, nowMs)
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
    const series = newSeries(key, folded, this.#options.clock.now())
    this.#overflow.set(key, series)
    return series
  }

  #evictIdle(): void {
    const before = this.#options.clock.now() - this.#options.idleMs
    for (const series of this.#series.values()) {
      if (series.usedAtMs > before) return
      if (series.open === 0) this.#series.delete(series.key)
    }
  }

  /** Makes room for one, if one of those idle longest may go. */
  #evictOne(): boolean {
    const before = this.#options.clock.now() - this.#options.idleMs
    let looked = 0
    for (const series of this.#series.values()) {
      if (series.usedAtMs > before || ++looked > MOST_PASSED_OVER) return false
      if (series.open > 0) continue
      return this.#series.delete(series.key)
    }
    return false
  }
}

function newSeries(key: string, values: readonly string[], nowMs: number): Series {
  const labels = LABELS.map((name, at) => `${name}="${escapeLabel(values[at]!)}"`).join(',')
  return { key, labels, opened: 0, closed: 0, failed: 0, received: 0, sent: 0, open: 0, usedAtMs: nowMs }
}

/** In the order of LABELS. */
function labelValues(record: ConnectionRecord, flag: string): string[] {
  const { source, destination, service } = record
  const isMutual = record.reason === 'mtls'
  const from = value(source.workload)
  const to = value(destination.workload)
  return [
    record.direction === 'outbound' ? 'source' : 'destination',
    from,
    from,
    UNKNOWN,
    value(source.namespace),
    isMutual ? value(source.identity) : UNKNOWN,
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
    isMutual ? value(destination.identity) : UNKNOWN,
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
