/**
 * Every metric of the agent. Names that the field's dashboards know are kept (`istio_tcp_*`); what they do not have is
 * `culvert_*`. Each label has a known, small set of values, or is bounded here: whoever sends us traffic must not be able
 * to grow this. States are asked for when scraped; only events are counted as they happen.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { systemClock, type Clock } from '../../lib/clock.ts'
import type { UncapturedReason } from '../../lib/reasons.ts'
import { parseSpiffe } from '../../lib/spiffe.ts'
import type { CertificateStatus, FetchResult } from '../identity/manager.ts'
import type { Safety } from '../pods/source.ts'
import type { TrafficReport } from '../worker/messages.ts'
import { BoundedLabel } from './bounded-label.ts'
import { registerProcessMetrics } from './process-metrics.ts'
import type { ThreadHeap } from './thread-heaps.ts'
import { ThreadCounters } from './thread-counters.ts'
import { TrafficSeries, type TrafficSeriesOptions } from './traffic-series.ts'

/** What is asked at each scrape. Absent ones are not shown. */
export interface MetricSources {
  certificates?: () => readonly CertificateStatus[]
  discovery?: () => DiscoveryNumbers
  /** Pods by state: `enrolled`, `pending`, … */
  podsByState?: () => Readonly<Record<string, number>>
  heaps?: () => Promise<readonly ThreadHeap[]>
}

/** What may pass the rules uncaptured: also what a pod's annotations exclude. */
export type UncapturedWord = UncapturedReason | 'excluded-port' | 'excluded-cidr'

export interface DiscoveryNumbers {
  readonly isConnected: boolean
  readonly isSynced: boolean
  /** By kind: `workload`, `service`, … */
  readonly resources: Readonly<Record<string, number>>
}

export interface MetricsOptions extends TrafficSeriesOptions {
  version: string
  startedAtMs?: number
  sources?: MetricSources
  clock?: Clock
}

const MOST_ACCOUNTS = 1000
const ERROR_CODE = /^[A-Z][A-Z0-9_]{0,39}$/
const FEW_WORDS = /^[A-Za-z0-9][A-Za-z0-9 _-]{0,39}$/

export class AgentMetrics {
  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE
  readonly #registry = new Registry()
  readonly #traffic: TrafficSeries
  readonly #threads = new ThreadCounters()
  readonly #errorCodes = new BoundedLabel(64, ERROR_CODE)
  readonly #drifts = new BoundedLabel(32, FEW_WORDS)
  readonly #terminationReasons = new BoundedLabel(32, FEW_WORDS)
  readonly #clock: Clock
  readonly #connections = this.#counter(
    'culvert_connections_total',
    'Connections that ended, by what became of them',
    ['direction', 'reason'],
  )
  readonly #errors = this.#counter(
    'culvert_connection_errors_total',
    'Connections that failed, by the name of the failure',
    ['direction', 'code'],
  )
  readonly #fetches = this.#counter(
    'culvert_certificate_fetches_total',
    'Requests to the certificate service',
    ['kind', 'outcome'],
  )
  readonly #fetchSeconds = new Histogram({
    name: 'culvert_certificate_fetch_duration_seconds',
    help: 'Time until the certificate service gave a certificate',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [this.#registry],
  })
  readonly #podStarts = new Histogram({
    name: 'culvert_pod_start_hold_seconds',
    help: 'How long the container runtime waited for a new pod to be captured, or known not to be in the mesh',
    labelNames: ['outcome'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2],
    registers: [this.#registry],
  })
  readonly #drift = this.#counter(
    'culvert_redirect_drift_total',
    'Times that the rules of a pod were found changed by someone else',
    ['what'],
  )
  readonly #repairs = this.#counter('culvert_redirect_repairs_total', 'Repairs of the rules of a pod', [
    'outcome',
  ])
  readonly #uncaptured = this.#counter(
    'culvert_uncaptured_packets_total',
    'First packets that the rules let pass uncaptured',
    ['reason'],
  )
  readonly #terminations = this.#counter(
    'culvert_discovery_terminations_total',
    'Discovery streams that ended',
    ['reason'],
  )
  readonly #answerSeconds = new Histogram({
    name: 'culvert_discovery_answer_seconds',
    help: 'Time until discovery answered for an address that was asked for',
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    registers: [this.#registry],
  })
  readonly #accessLogDropped = this.#counter(
    'culvert_access_log_dropped_lines_total',
    'Access-log lines that were dropped because their reader was too slow',
    [],
  )

  constructor(options: MetricsOptions) {
    const { version, sources = {}, clock = systemClock, startedAtMs = clock.now() } = options
    this.#clock = clock
    this.#traffic = new TrafficSeries(options)
    registerProcessMetrics(this.#registry, startedAtMs)
    this.#gauge('culvert_build_info', 'Always 1', ['version'], gauge => gauge.set({ version }, 1))
    this.#gauge('culvert_connections_open', 'Connections that are open now', [], gauge =>
      gauge.set(this.#traffic.open),
    )
    this.#gauge('culvert_traffic_series', 'Label sets of the istio_tcp_ metrics that are kept', [], gauge =>
      gauge.set(this.#traffic.size),
    )
    this.#gauge(
      'culvert_traffic_series_folded',
      'Connections counted under "other" because of the cap on label sets',
      [],
      gauge => gauge.set(this.#traffic.folded),
    )
    const { certificates, discovery, podsByState, heaps } = sources
    if (certificates) this.#certificateGauges(certificates)
    if (discovery) this.#discoveryGauges(discovery)
    if (heaps) this.#heapGauge(heaps)
    if (podsByState)
      this.#gauge('culvert_pods', 'Pods of this node by state', ['state'], gauge => {
        for (const [state, count] of Object.entries(podsByState())) gauge.set({ state }, count)
      })
  }

  /** What a data-plane thread has counted of connections since its last report. */
  traffic(report: TrafficReport, thread: number): void {
    this.#traffic.take(thread, report)
    for (const { direction, word, count } of report.reasons)
      this.#connections.inc({ direction, reason: word }, count)
    for (const { direction, word, count } of report.errors)
      this.#errors.inc({ direction, code: word === undefined ? 'none' : this.#errorCodes.of(word) }, count)
  }

  /** The `counters` message of a data-plane thread. */
  threadCounters(thread: number, values: Readonly<Record<string, number>>): void {
    this.#threads.take(thread, values)
  }

  /** A data-plane thread has ended, and with it what it had open. */
  threadGone(thread: number): void {
    this.#threads.threadGone(thread)
    this.#traffic.threadGone(thread)
  }

  certificateFetched(result: FetchResult): void {
    this.#fetches.inc({ kind: result.isRenewal ? 'renewal' : 'first', outcome: result.outcome })
    if (result.outcome === 'issued') this.#fetchSeconds.observe(result.durationMs / 1000)
  }

  /** `outcome`: a word that says whether it was in time. */
  podStartHeld(heldMs: number, outcome: Safety): void {
    this.#podStarts.observe({ outcome }, heldMs / 1000)
  }

  /** `what`: a sentence such as `IPv4 nat: …`; what stands before its colon is counted. */
  redirectDrift(what: string): void {
    this.#drift.inc({ what: this.#drifts.of(what.split(':', 1)[0]!) })
  }

  redirectRepaired(outcome: 'repaired' | 'failed'): void {
    this.#repairs.inc({ outcome })
  }

  /** Adds what the kernel's counters rose by. */
  uncaptured(reason: UncapturedWord, packets: number): void {
    if (packets > 0) this.#uncaptured.inc({ reason }, packets)
  }

  /** `reason`: one of a few words. */
  discoveryTerminated(reason: string): void {
    this.#terminations.inc({ reason: this.#terminationReasons.of(reason) })
  }

  discoveryAnswered(tookMs: number): void {
    this.#answerSeconds.observe(tookMs / 1000)
  }

  accessLogDropped(lines: number): void {
    this.#accessLogDropped.inc(lines)
  }

  /** Everything, in the Prometheus text format 0.0.4. */
  async text(): Promise<string> {
    return (await this.#registry.metrics()) + this.#threads.text() + this.#traffic.text()
  }

  #certificateGauges(certificates: () => readonly CertificateStatus[]): void {
    this.#gauge('culvert_certificates', 'Pods by the state of their certificate', ['state'], gauge => {
      for (const state of ['fetching', 'valid', 'renewal-failing', 'expired'] as const)
        gauge.set({ state }, certificates().filter(status => status.state === state).length)
    })
    this.#gauge(
      'culvert_certificates_alarm',
      'Pods with less than a quarter of their certificate left to live',
      [],
      gauge => gauge.set(certificates().filter(status => status.alarm).length),
    )
    this.#gauge(
      'culvert_certificate_expiry_seconds',
      'Seconds until the first certificate of a service account ends, negative once it has',
      ['namespace', 'service_account'],
      gauge => {
        for (const [account, notAfterMs] of earliestByAccount(certificates())) {
          const [namespace, service_account] = account.split('/') as [string, string]
          gauge.set({ namespace, service_account }, (notAfterMs - this.#clock.now()) / 1000)
        }
      },
    )
  }

  #discoveryGauges(discovery: () => DiscoveryNumbers): void {
    this.#gauge('culvert_discovery_connected', 'Whether the discovery stream stands', [], gauge =>
      gauge.set(discovery().isConnected ? 1 : 0),
    )
    this.#gauge(
      'culvert_discovery_synced',
      'Whether the mesh was heard of as a whole since the start',
      [],
      gauge => gauge.set(discovery().isSynced ? 1 : 0),
    )
    this.#gauge('culvert_discovery_resources', 'What the agent knows of, by kind', ['kind'], gauge => {
      for (const [kind, count] of Object.entries(discovery().resources)) gauge.set({ kind }, count)
    })
  }

  #heapGauge(heaps: () => Promise<readonly ThreadHeap[]>): void {
    const gauge = new Gauge({
      name: 'culvert_heap_bytes',
      help: 'JavaScript heap of each thread, garbage included',
      labelNames: ['thread', 'part'],
      registers: [this.#registry],
      collect: async () => {
        const now = await heaps() // before the reset: another scrape may come meanwhile
        gauge.reset()
        for (const { thread, ...parts } of now)
          for (const [part, bytes] of Object.entries(parts)) gauge.set({ thread, part }, bytes)
      },
    })
  }

  #counter<T extends string>(name: string, help: string, labelNames: readonly T[]): Counter<T> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }

  /** A gauge that is emptied and set anew at each scrape. */
  #gauge<T extends string>(
    name: string,
    help: string,
    labelNames: readonly T[],
    read: (gauge: Gauge<T>) => void,
  ): void {
    const gauge = new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect: () => {
        gauge.reset()
        read(gauge)
      },
    })
  }
}

/** `namespace/service account` and the earliest end; the accounts beyond the bound share `other/other`. */
function earliestByAccount(certificates: readonly CertificateStatus[]): Map<string, number> {
  const earliest = new Map<string, number>()
  for (const { identity, notAfterMs } of certificates) {
    const id = parseSpiffe(identity)
    if (!id || notAfterMs === undefined) continue
    const own = `${id.namespace}/${id.serviceAccount}`
    const account = earliest.has(own) || earliest.size < MOST_ACCOUNTS ? own : 'other/other'
    earliest.set(account, Math.min(earliest.get(account) ?? Infinity, notAfterMs))
  }
  return earliest
}
