/**
 * The ca-server put together: an authority, a world and who may ask, behind one port. The only file that knows
 * all the parts. Everything it starts ends with `stop`.
 */
import { join } from 'node:path'
import { Code, ConnectError, createConnectRouter, type ConnectRouter } from '@connectrpc/connect'
import { createRegistry } from '@bufbuild/protobuf'
import { CulvertError, errorText } from '../lib/errors.ts'
import type { Logger } from '../lib/log.ts'
import { NamespaceSchema, NodeSchema, TrustBundleSchema } from '../lib/proto/gen/culvert/v1/mesh_pb.js'
import { ReportService } from '../lib/proto/gen/culvert/v1/report_pb.js'
import { AggregatedDiscoveryService } from '../lib/proto/gen/envoy/discovery_pb.js'
import { AuthorizationSchema } from '../lib/proto/gen/istio/authorization_pb.js'
import { IstioCertificateService } from '../lib/proto/gen/istio/ca_pb.js'
import { AddressSchema } from '../lib/proto/gen/istio/workload_pb.js'
import { replaceFile } from './atomic-file.ts'
import { Authority, type ServingCertificate } from './authority/authority.ts'
import { keepServingCertificate } from './authority/serving.ts'
import { Calls } from './calls.ts'
import type { CaConfig } from './config.ts'
import { Publisher } from './discovery/publisher.ts'
import { discoveryService, shortType } from './discovery/service.ts'
import { RateLimit } from './issuance/rate-limit.ts'
import { certificateService } from './issuance/service.ts'
import { openAccess } from './kubernetes/access.ts'
import { ApiClient } from './kubernetes/api-client.ts'
import { reflectorMetrics } from './kubernetes/metrics.ts'
import { kubernetesSource } from './kubernetes/source.ts'
import { Listener } from './listener.ts'
import { createMetrics, observeSources, type Metrics } from './metrics.ts'
import { Observed } from './reports/observed.ts'
import { reportService } from './reports/service.ts'
import { FileObservedStore } from './reports/store.ts'
import { StatusServer } from './status-server.ts'
import type { TokenAuthenticator } from './tokens/authenticator.ts'
import { JwksAuthenticator } from './tokens/jwks.ts'
import { fileSource } from './world/file-source.ts'
import type { WorldSource } from './world/source.ts'
import { World } from './world/world.ts'

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

/** Starts everything; ends when both ports are open. Throws what a part cannot start with, having stopped the others. */
export async function startServer(config: CaConfig, log: Logger): Promise<CaServer> {
  const stopping = new AbortController()
  const closers: Closer[] = [() => stopping.abort()]
  const stop = async (): Promise<void> => {
    for (const close of closers.splice(0).reverse()) await close()
  }
  try {
    const metrics = createMetrics()
    const parts = await openParts(config, metrics, log, stopping.signal, closers)
    const { port, serving } = await openService(config, parts, metrics, log, stopping.signal, closers)
    observeParts(metrics, parts, serving)
    const status = await StatusServer.open({
      port: config.metricsPort,
      address: config.listenAddress,
      registry: metrics.registry,
      pending: () => pendingOf(parts),
      log: log.child({ component: 'status' }),
    })
    closers.push(() => status.close())
    const ports = { port, metricsPort: status.port }
    if (config.portFile !== undefined) await replaceFile(config.portFile, `${JSON.stringify(ports)}\n`, 0o644)
    log.info({ port, metrics_port: status.port, trust_domain: config.trustDomain }, 'ca-server ready')
    return { ...ports, stop }
  } catch (err) {
    await stop()
    throw err
  }
}

type Closer = () => Promise<void> | void

interface Parts {
  /** The API server's; undefined with a world file. Shared by all who talk to the cluster. */
  readonly api: ApiClient | undefined
  readonly authority: Authority
  readonly authenticator: TokenAuthenticator
  readonly source: WorldSource
  readonly world: World
  readonly observed: Observed
  readonly publisher: Publisher
}

/** What is still to come before agents can be told anything. */
function pendingOf({ source, publisher }: Parts): readonly string[] {
  if (publisher.isReady) return []
  const pending = source.pending()
  return pending.length > 0 ? pending : ['the first publication']
}

/** What knows and decides, before anybody may ask. */
async function openParts(
  config: CaConfig,
  metrics: Metrics,
  log: Logger,
  signal: AbortSignal,
  closers: Closer[],
): Promise<Parts> {
  const api = config.kubernetes && new ApiClient(await openAccess(config.kubernetes))
  closers.unshift(() => api?.close()) // after all who use it
  const authority = await Authority.open({
    trustDomain: config.trustDomain,
    source: config.authority,
    engine: config.engine,
    log: log.child({ component: 'authority' }),
  })
  const authenticator = await openAuthenticator(config, log.child({ component: 'tokens' }), signal)
  const source = openSource(config, api, metrics, log.child({ component: 'world' }))
  const world = new World({ strictByDefault: config.strictByDefault })
  const observed = await Observed.open({
    world,
    store: new FileObservedStore(join(config.dataDir, 'observed.json')),
    log: log.child({ component: 'reports' }),
  })
  const publisher = new Publisher({
    world,
    observed,
    settings: config,
    roots: () => authority.roots,
    log: log.child({ component: 'discovery' }),
  })
  closers.push(() => publisher.close())
  return { api, authority, authenticator, source, world, observed, publisher }
}

async function openAuthenticator(
  config: CaConfig,
  log: Logger,
  signal: AbortSignal,
): Promise<TokenAuthenticator> {
  if (!config.tokenKeys) throw new CulvertError('CONFIG', 'JWKS_FILE and TOKEN_ISSUER are needed')
  const { file, issuer } = config.tokenKeys
  const authenticator = await JwksAuthenticator.open({ file, issuer, audience: config.tokenAudience, log })
  authenticator.follow(signal)
  return authenticator
}

function openSource(
  { worldFile }: CaConfig,
  client: ApiClient | undefined,
  metrics: Metrics,
  log: Logger,
): WorldSource {
  if (client) return kubernetesSource({ client, observe: reflectorMetrics(metrics.registry), log })
  return fileSource({ file: worldFile!, log, failed: () => metrics.worldErrors.inc() })
}

/** Opens the service port and sets everything in motion that keeps it true. */
async function openService(
  config: CaConfig,
  parts: Parts,
  metrics: Metrics,
  log: Logger,
  signal: AbortSignal,
  closers: Closer[],
): Promise<{ port: number; serving: () => ServingCertificate }> {
  const { authority, source, world, publisher } = parts
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
    writeRoots(config, authority).catch((err: unknown) => {
      log.error({ file: config.rootOut, err: errorText(err) }, 'roots not written')
    })
  })
  authority.follow(signal)
  await source.start(world, signal)
  publisher.flush()

  const ending = new AbortController()
  const opened = await Listener.open({
    port: config.listenPort,
    address: config.listenAddress,
    certificate: serving,
    router: createRouter(config, parts, metrics, log, ending.signal),
    metrics,
    log: log.child({ component: 'listener' }),
  })
  opened.useCertificate(serving) // it may have been renewed meanwhile
  listener = opened
  closers.push(() => opened.close(STOP_GRACE_MS))
  closers.push(() => ending.abort(new ConnectError('the server stops', Code.Unavailable)))
  return { port: opened.port, serving: () => serving }
}

function createRouter(
  config: CaConfig,
  { authority, authenticator, world, observed, publisher }: Parts,
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
