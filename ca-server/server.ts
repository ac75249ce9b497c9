/**
 * The ca-server put together: what knows and decides (`parts.ts`) behind one port. Everything it starts ends with
 * `stop`.
 */
import { Code, ConnectError, createConnectRouter, type ConnectRouter } from '@connectrpc/connect'
import { createRegistry } from '@bufbuild/protobuf'
import { errorText } from '../lib/errors.ts'
import type { Logger } from '../lib/log.ts'
import { keepMemorySmall } from '../lib/memory.ts'
import { NamespaceSchema, NodeSchema, TrustBundleSchema } from '../lib/proto/gen/culvert/v1/mesh_pb.js'
import { ReportService } from '../lib/proto/gen/culvert/v1/report_pb.js'
import { AggregatedDiscoveryService } from '../lib/proto/gen/envoy/discovery_pb.js'
import { AuthorizationSchema } from '../lib/proto/gen/istio/authorization_pb.js'
import { IstioCertificateService } from '../lib/proto/gen/istio/ca_pb.js'
import { AddressSchema } from '../lib/proto/gen/istio/workload_pb.js'
import { replaceFile } from './atomic-file.ts'
import type { Authority, ServingCertificate } from './authority/authority.ts'
import { keepServingCertificate } from './authority/serving.ts'
import { Calls } from './calls.ts'
import type { CaConfig } from './config.ts'
import { discoveryService, shortType } from './discovery/service.ts'
import { RateLimit } from './issuance/rate-limit.ts'
import { certificateService } from './issuance/service.ts'
import { Listener } from './listener.ts'
import { createMetrics, observeSources, type Metrics } from './metrics.ts'
import { openParts, pendingOf, type Ending, type Parts } from './parts.ts'
import { reportService } from './reports/service.ts'
import { StatusServer } from './status-server.ts'

export interface CaServer {
  /** Of the service port. */
  readonly port: number
  readonly metricsPort: number
  /** Ends streams, takes nothing more, and has let go of everything within two seconds. */
  stop(): Promise<void>
}

const SERVING_TTL_MS = 86_400_000
/** Of one request: a CSR, or a report of a full node. */
const MAX_REQUEST_BYTES = 1024 * 1024
/** A client that returns names every resource it has: 60 to 100 bytes each. */
const MAX_DISCOVERY_REQUEST_BYTES = 16 * 1024 * 1024
const STOP_GRACE_MS = 1000
/** Only for JSON, where the contents of an Any are spelled out. */
const ANY_TYPES = createRegistry(
  AddressSchema,
  AuthorizationSchema,
  NamespaceSchema,
  NodeSchema,
  TrustBundleSchema,
)

/**
 * Starts everything; ends when both ports are open. Throws what a part cannot start with, or what it was waiting for
 * when the signal aborted, having stopped the others.
 */
export async function startServer(config: CaConfig, log: Logger, signal?: AbortSignal): Promise<CaServer> {
  const stopping = new AbortController()
  const ending: Ending = { closers: [], running: [], last: [] }
  const stop = async (): Promise<void> => {
    for (const close of ending.closers.splice(0).reverse()) await close()
    stopping.abort()
    await Promise.all(ending.running)
    for (const close of ending.last.splice(0)) await close()
  }
  const giveUp = (): void => stopping.abort()
  signal?.addEventListener('abort', giveUp)
  try {
    const metrics = createMetrics()
    let pending = (): readonly string[] => ['what certificates are signed with']
    const status = await StatusServer.open({
      port: config.metricsPort,
      address: config.listenAddress,
      registry: metrics.registry,
      pending: () => pending(),
      log: log.child({ component: 'status' }),
    })
    ending.last.push(() => status.close())
    const parts = await openParts(config, metrics, log, stopping.signal, ending)
    pending = () => pendingOf(parts)
    const { port, serving } = await openService(config, parts, metrics, log, stopping.signal, ending)
    observeParts(metrics, parts, serving)
    ending.running.push(keepMemory(log.child({ component: 'memory' }), stopping.signal))
    const ports = { port, metricsPort: status.port }
    if (config.portFile !== undefined) await replaceFile(config.portFile, `${JSON.stringify(ports)}\n`, 0o644)
    log.info({ port, metrics_port: status.port, trust_domain: config.trustDomain }, 'ca-server ready')
    return { ...ports, stop }
  } catch (err) {
    await stop()
    throw err
  } finally {
    signal?.removeEventListener('abort', giveUp)
  }
}

async function keepMemory(log: Logger, signal: AbortSignal): Promise<void> {
  try {
    await keepMemorySmall({ log }, signal)
  } catch (err) {
    log.error({ err: errorText(err) }, 'memory is no longer given back')
  }
}

/** Opens the service port and sets everything in motion that keeps it true. */
async function openService(
  config: CaConfig,
  parts: Parts,
  metrics: Metrics,
  log: Logger,
  signal: AbortSignal,
  { closers, running }: Ending,
): Promise<{ port: number; serving: () => ServingCertificate }> {
  const { authority, desk, source, world, observed, publisher } = parts
  let listener: Listener | undefined
  let serving = await keepServingCertificate(
    {
      authority,
      dns: config.serverDnsNames,
      ips: config.serverIps,
      ttlMs: SERVING_TTL_MS,
      log: log.child({ component: 'authority' }),
      renewed(certificate) {
        serving = certificate
        listener?.useCertificate(certificate)
      },
    },
    signal,
  )
  await writeRoots(config, authority)
  authority.onChange(() => {
    publisher.rootsChanged()
    desk?.rootsChanged()
    writeRoots(config, authority).catch((err: unknown) => {
      log.error({ file: config.rootOut, err: errorText(err) }, 'roots not written')
    })
  })
  authority.follow(signal)
  if (desk) running.push(desk.run(observed, () => authority.roots))
  await source.start(world, signal)
  publisher.flush()

  const noMore = new AbortController()
  const opened = await Listener.open({
    port: config.listenPort,
    address: config.listenAddress,
    certificate: serving,
    router: createRouter(config, parts, metrics, log, noMore.signal),
    metrics,
    log: log.child({ component: 'listener' }),
  })
  opened.useCertificate(serving) // it may have been renewed meanwhile
  listener = opened
  closers.push(() => opened.close(STOP_GRACE_MS))
  closers.push(() => noMore.abort(new ConnectError('the server stops', Code.Unavailable)))
  return { port: opened.port, serving: () => serving }
}

function createRouter(
  config: CaConfig,
  { desk, authority, authenticator, world, observed, publisher }: Parts,
  metrics: Metrics,
  log: Logger,
  shutdownSignal: AbortSignal,
): ConnectRouter {
  const calls = new Calls({
    authenticator,
    trustedAccounts: config.trustedNodeAccounts,
    metrics,
    log: log.child({ component: 'calls' }),
  })
  const certificates = certificateService({
    authority,
    world,
    trustDomain: config.trustDomain,
    defaultTtlMs: config.defaultTtlMs,
    maxTtlMs: config.maxTtlMs,
    rateLimit: new RateLimit({ perSecond: config.issuesPerSecond, burst: config.issuesBurst }),
    calls,
    metrics,
    log: log.child({ component: 'issuance' }),
  })
  const isSynced = (): boolean => world.isSynced
  const reports = reportService({
    observed,
    noticed: desk?.noticed,
    isSynced,
    calls,
    metrics,
    log: log.child({ component: 'reports' }),
  })
  const discovery = discoveryService({
    publisher,
    calls,
    metrics,
    log: log.child({ component: 'discovery' }),
  })
  return createConnectRouter({
    grpcWeb: false,
    readMaxBytes: MAX_REQUEST_BYTES,
    // Compressing the same snapshot for every agent costs more than the bytes; and no bomb can be sent to us.
    acceptCompression: [],
    requestGate: calls.gate,
    shutdownSignal,
    jsonOptions: { registry: ANY_TYPES },
  })
    .service(IstioCertificateService, certificates)
    .service(ReportService, reports)
    .service(AggregatedDiscoveryService, discovery, { readMaxBytes: MAX_DISCOVERY_REQUEST_BYTES })
}

function observeParts(
  metrics: Metrics,
  { authority, world, observed, publisher }: Parts,
  serving: () => ServingCertificate,
): void {
  observeSources(metrics, {
    worldObjects: () => world.counts(),
    podStates: () => observed.counts(),
    publishedResources: () => new Map(publisher.sets.map(set => [shortType(set.typeUrl), set.size])),
    ends() {
      const { root, signer } = authority.ends
      return { root: seconds(root), signer: seconds(signer), serving: seconds(serving().notAfter) }
    },
  })
}

async function writeRoots({ rootOut }: CaConfig, authority: Authority): Promise<void> {
  if (rootOut !== undefined) await replaceFile(rootOut, authority.roots.join(''), 0o644)
}

function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1000)
}
