/**
 * The ca-server put together: an authority, a world and who may ask, behind one port. The only file that knows
 * all the parts. Everything it starts ends with `stop`.
 */
import { join } from 'node:path'
import { Code, ConnectError, createConnectRouter, type ConnectRouter } from '@connectrpc/connect'
import { createRegistry } from '@bufbuild/protobuf'
import { errorText } from '../lib/errors.ts'
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
import { Listener } from './listener.ts'
import { createMetrics, observeSources } from './metrics.ts'
import { Observed } from './reports/observed.ts'
import { reportService } from './reports/service.ts'
import { FileObservedStore } from './reports/store.ts'
import { StatusServer } from './status-server.ts'
import { JwksAuthenticator } from './tokens/jwks.ts'
import { fileSource } from './world/file-source.ts'
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

/** Starts everything; ends when both ports are open. Throws what a part cannot start with, having stopped the others. */
export async function startServer(config: CaConfig, log: Logger): Promise<CaServer> {
  const stopping = new AbortController()
  const closers: (() => Promise<void> | void)[] = [() => stopping.abort()]
  const stop = async (): Promise<void> => {
    for (const close of closers.splice(0).reverse()) await close()
  }
  try {
    return await start(config, log, stopping.signal, closers, stop)
  } catch (err) {
    await stop()
    throw err
  }
}

async function start(
  config: CaConfig,
  log: Logger,
  signal: AbortSignal,
  closers: (() => Promise<void> | void)[],
  stop: () => Promise<void>,
): Promise<CaServer> {
  const metrics = createMetrics()
  const part = (component: string): Logger => log.child({ component })

  const authority = await Authority.open({
    trustDomain: config.trustDomain,
    source: config.authority,
    engine: config.engine,
    log: part('authority'),
  })
  const authenticator = await JwksAuthenticator.open({
    file: config.jwksFile,
    issuer: config.tokenIssuer,
    audience: config.tokenAudience,
    log: part('tokens'),
  })
  const world = new World()
  const observed = await Observed.open({
    world,
    store: new FileObservedStore(join(config.dataDir, 'observed.json')),
    log: part('reports'),
  })
  const publisher = new Publisher({
    world,
    observed,
    settings: config,
    roots: () => authority.roots,
    log: part('discovery'),
  })
  closers.push(() => publisher.close())

  let serving: ServingCertificate | undefined
  let listener: Listener | undefined
  serving = await keepServingCertificate(
    {
      authority,
      dns: config.serverDnsNames,
      ips: config.serverIps,
      ttlMs: SERVING_TTL_MS,
      log: part('authority'),
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
  authenticator.follow(signal)

  const calls = new Calls({
    authenticator,
    trustedAccounts: config.trustedNodeAccounts,
    metrics,
    log: part('calls'),
  })
  const ending = new AbortController()
  const router = createRouter(calls, ending.signal)
    .service(
      IstioCertificateService,
      certificateService({
        authority,
        world,
        trustDomain: config.trustDomain,
        defaultTtlMs: config.defaultTtlMs,
        maxTtlMs: config.maxTtlMs,
        rateLimit: new RateLimit({ perSecond: config.issuesPerSecond, burst: config.issuesBurst }),
        calls,
        metrics,
        log: part('issuance'),
      }),
    )
    .service(
      ReportService,
      reportService({ observed, isSynced: () => world.isSynced, calls, metrics, log: part('reports') }),
    )
    .service(
      AggregatedDiscoveryService,
      discoveryService({ publisher, calls, metrics, log: part('discovery') }),
      {
        readMaxBytes: MAX_DISCOVERY_REQUEST_BYTES,
      },
    )

  await fileSource({
    file: config.worldFile,
    log: part('world'),
    failed: () => metrics.worldErrors.inc(),
  }).start(world, signal)
  publisher.flush()

  const certificate = serving
  listener = await Listener.open({
    port: config.listenPort,
    address: config.listenAddress,
    certificate,
    router,
    metrics,
    log: part('listener'),
  })
  const { port } = listener
  const opened = listener
  closers.push(() => opened.close(STOP_GRACE_MS))
  closers.push(() => ending.abort(new ConnectError('the server stops', Code.Unavailable)))
  if (serving !== certificate) listener.useCertificate(serving)

  observeSources(metrics, {
    worldObjects: () => world.counts(),
    podStates: () => observed.counts(),
    publishedResources: () => new Map(publisher.sets.map(set => [shortType(set.typeUrl), set.size])),
    ends() {
      const { root, signer } = authority.ends
      return { root: seconds(root), signer: seconds(signer), serving: seconds(serving!.notAfter) }
    },
  })
  const status = await StatusServer.open({
    port: config.metricsPort,
    address: config.listenAddress,
    registry: metrics.registry,
    pending: () => (publisher.isReady ? [] : [`the first usable ${config.worldFile}`]),
    log: part('status'),
  })
  closers.push(() => status.close())
  if (config.portFile !== undefined)
    await replaceFile(config.portFile, `${JSON.stringify({ port, metricsPort: status.port })}\n`, 0o644)
  log.info({ port, metrics_port: status.port, trust_domain: config.trustDomain }, 'ca-server ready')
  return { port, metricsPort: status.port, stop }
}

function createRouter(calls: Calls, shutdownSignal: AbortSignal): ConnectRouter {
  return createConnectRouter({
    grpcWeb: false,
    readMaxBytes: MAX_REQUEST_BYTES,
    // Compressing the same snapshot for every agent costs more than the bytes; and no bomb can be sent to us.
    acceptCompression: [],
    requestGate: calls.gate,
    shutdownSignal,
    // Only for JSON, where the contents of an Any are spelled out.
    jsonOptions: {
      registry: createRegistry(
        AddressSchema,
        AuthorizationSchema,
        NamespaceSchema,
        NodeSchema,
        TrustBundleSchema,
      ),
    },
  })
}

async function writeRoots({ rootOut }: CaConfig, authority: Authority): Promise<void> {
  if (rootOut !== undefined) await replaceFile(rootOut, authority.roots.join(''), 0o644)
}

function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1000)
}
