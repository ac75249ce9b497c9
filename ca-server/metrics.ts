/**
 * The server's numbers. Names that begin with `citadel_server_` mean what they mean at other CAs of the Istio
 * family, so that existing dashboards go on working. All label values come from fixed lists.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

export interface Metrics {
  readonly registry: Registry
  readonly requests: Counter
  readonly issued: Counter
  readonly authenticationFailures: Counter
  readonly tokenReviews: Counter<'result'>
  readonly csrFaults: Counter
  readonly signingFaults: Counter
  readonly refusals: Counter<'reason'>
  readonly rateLimited: Counter
  readonly issuanceSeconds: Histogram
  readonly rejectedConnections: Counter<'cause'>
  readonly connections: Gauge
  readonly discoveryStreams: Gauge
  readonly discoveryResponses: Counter<'type'>
  readonly discoveryResources: Counter<'type' | 'change'>
  readonly discoveryRefused: Counter<'type'>
  readonly reports: Counter<'result'>
  readonly worldErrors: Counter
  readonly statusWrites: Counter<'result'>
  readonly events: Counter<'result'>
}

/** Numbers that are looked up when somebody asks for them. */
export interface MetricSources {
  readonly worldObjects: () => ReadonlyMap<string, number>
  readonly podStates: () => ReadonlyMap<string, number>
  readonly publishedResources: () => ReadonlyMap<string, number>
  /** Unix seconds. */
  readonly ends: () => { readonly root: number; readonly signer: number; readonly serving: number }
}

export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry, gcDurationBuckets: [0.001, 0.01, 0.1, 1] })
  const counter = (name: string, help: string) => new Counter({ name, help, registers })
  return {
    registry,
    requests: counter('citadel_server_csr_count', 'Certificate requests received.'),
    issued: counter('citadel_server_success_cert_issuance_count', 'Certificates issued.'),
    authenticationFailures: counter(
      'citadel_server_authentication_failure_count',
      'Calls whose token was not accepted.',
    ),
    tokenReviews: new Counter({
      name: 'culvert_ca_token_reviews_total',
      help: 'Tokens that the API server was asked about, by what it said; stale: not asked, and good a short while ago.',
      labelNames: ['result'],
      registers,
    }),
    csrFaults: counter('citadel_server_csr_parsing_err_count', 'Requests whose CSR was not acceptable.'),
    signingFaults: counter('citadel_server_csr_sign_err_count', 'Requests that could not be signed.'),
    refusals: new Counter({
      name: 'culvert_ca_refusals_total',
      help: 'Calls refused, by reason.',
      labelNames: ['reason'],
      registers,
    }),
    rateLimited: counter('culvert_ca_rate_limited_total', "Certificate requests above their node's rate."),
    issuanceSeconds: new Histogram({
      name: 'culvert_ca_issuance_duration_seconds',
      help: 'From the request to the signed certificate.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1],
      registers,
    }),
    rejectedConnections: new Counter({
      name: 'culvert_ca_rejected_connections_total',
      help: 'Connections to the service port that broke TLS or HTTP rules, by cause.',
      labelNames: ['cause'],
      registers,
    }),
    connections: new Gauge({
      name: 'culvert_ca_sessions',
      help: 'HTTP/2 sessions open on the service port.',
      registers,
    }),
    discoveryStreams: new Gauge({
      name: 'culvert_ca_discovery_streams',
      help: 'Discovery streams open.',
      registers,
    }),
    discoveryResponses: new Counter({
      name: 'culvert_ca_discovery_responses_total',
      help: 'Discovery responses sent, by type.',
      labelNames: ['type'],
      registers,
    }),
    discoveryResources: new Counter({
      name: 'culvert_ca_discovery_resources_total',
      help: 'Resources sent in discovery responses, by type and by what happened to them.',
      labelNames: ['type', 'change'],
      registers,
    }),
    discoveryRefused: new Counter({
      name: 'culvert_ca_discovery_refused_total',
      help: 'Discovery responses that a client refused (NACK), by type.',
      labelNames: ['type'],
      registers,
    }),
    reports: new Counter({
      name: 'culvert_ca_reports_total',
      help: "Agents' reports, by what became of them.",
      labelNames: ['result'],
      registers,
    }),
    statusWrites: new Counter({
      name: 'culvert_ca_status_writes_total',
      help: 'Writes of the status annotation of pods, by what became of them.',
      labelNames: ['result'],
      registers,
    }),
    events: new Counter({
      name: 'culvert_ca_events_total',
      help: 'Kubernetes Events, by what became of them.',
      labelNames: ['result'],
      registers,
    }),
    worldErrors: counter(
      'culvert_ca_world_errors_total',
      'States of the source of objects that were not usable.',
    ),
  }
}

/** Adds the numbers that are looked up on demand. */
export function observeSources({ registry }: Metrics, sources: MetricSources): void {
  const registers = [registry]
  const byLabel = (name: string, help: string, label: string, source: () => ReadonlyMap<string, number>) =>
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers,
      collect() {
        this.reset()
        for (const [value, count] of source()) this.set({ [label]: value }, count)
      },
    })
  byLabel('culvert_ca_world_objects', 'Kubernetes objects held, by kind.', 'kind', sources.worldObjects)
  byLabel('culvert_ca_pods', 'Pods by what their agent last observed.', 'state', sources.podStates)
  byLabel('culvert_ca_published_resources', 'Resources served, by type.', 'type', sources.publishedResources)
  const end = (name: string, help: string, which: 'root' | 'signer' | 'serving') =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(sources.ends()[which])
      },
    })
  end('citadel_server_root_cert_expiry_timestamp', 'End of the first root to end, Unix seconds.', 'root')
  end('citadel_server_cert_chain_expiry_timestamp', 'End of the signing certificate, Unix seconds.', 'signer')
  end(
    'culvert_ca_serving_cert_expiry_timestamp_seconds',
    "End of the server's own certificate, Unix seconds.",
    'serving',
  )
}
