/**
 * The agent, put together: the only file that knows all of its parts. Start: ports that tell → discovery and data-plane
 * threads → pods. Stop, after SIGTERM: unready → no new pods → GOAWAY and drain to the deadline → out. Rules and
 * listening sockets stay where they are: stopped is not un-enrolled, and the next agent takes both over.
 */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { errorText } from '../lib/errors.ts'
import type { Shutdown } from '../lib/lifecycle.ts'
import type { Logger } from '../lib/log.ts'
import { keepMemorySmall } from '../lib/memory.ts'
import { VERSION } from '../lib/version.ts'
import { CaClient } from './identity/ca-client.ts'
import { Channel } from './identity/channel.ts'
import { CertificateManager } from './identity/manager.ts'
import { ReportClient } from './identity/report-client.ts'
import { Discovery } from './mesh/discovery.ts'
import { Mesh } from './mesh/mesh.ts'
import { Router } from './mesh/router.ts'
import { AccessLog } from './observe/access-log.ts'
import { AdminServer } from './observe/admin.ts'
import { MetricsServer } from './observe/metrics-server.ts'
import { AgentMetrics } from './observe/metrics.ts'
import { Readiness, ReadinessServer } from './observe/readiness.ts'
import { explainPod } from './pods/explain.ts'
import { RedirectGuard } from './pods/guard.ts'
import { Kubelet } from './pods/kubelet.ts'
import { ListenerKeeper } from './pods/listeners.ts'
import { NodeAddresses } from './pods/node-addresses.ts'
import { podSourceFrom } from './pods/pod-source.ts'
import { Pods } from './pods/pods.ts'
import { UncapturedCounters } from './pods/uncaptured.ts'
import type { AgentStart } from './start.ts'
import { releasePages } from './sys/pages.ts'
import type { ConnectionRecord } from './worker/messages.ts'

/** Two programs for each pod that has left the mesh within the last half minute. */
const CLEAR_AWAY_MS = 5000

/** Runs until told to stop; resolves with the exit code. Rejects when it cannot start. */
export async function runAgent(start: AgentStart, shutdown: Shutdown): Promise<number> {
  const { startedAtMs, config, log, dataPlane, heaps } = start
  const { threads } = dataPlane
  await mkdir(config.runDir, { recursive: true, mode: 0o700 })

  const readiness = new Readiness()
  const synced = readiness.block('discovery: the first full picture')
  const threadsReady = readiness.block('data-plane threads')
  const podsKnown = readiness.block(
    () => `pods of this node: ${source.status().waitsFor ?? 'the first of them'}`,
  )

  const mesh = new Mesh({
    nodeName: config.nodeName,
    clusterId: config.clusterId,
    trustDomain: config.trustDomain,
    network: config.network,
    culvertTypes: config.culvertTypes,
    discovery: config.discovery,
  })
  const nodeAddresses = new NodeAddresses(config.nodeNetns, log.child({ component: 'node-addresses' }))
  const kubelet =
    config.kubeletNames.length === 0
      ? undefined
      : new Kubelet({
          netns: config.nodeNetns,
          names: config.kubeletNames,
          log: log.child({ component: 'kubelet' }),
        })
  const { demand } = mesh.addresses
  const router = new Router({
    mesh,
    nodeName: config.nodeName,
    unknownHoldMs: config.unknownHoldMs,
    ownAddresses: () => nodeAddresses.read(),
    ...(kubelet && { isKubelet: kubelet.called }),
    log: log.child({ component: 'router' }),
  })

  const token = async () => (await readFile(config.tokenFile, 'utf8')).trim()
  const caChannel = new Channel({
    url: config.caAddress,
    roots: () => readFileSync(config.caRootFile, 'utf8'),
  })
  const reportChannel = new Channel({
    url: config.xdsAddress,
    roots: () => readFileSync(config.xdsRootFile, 'utf8'),
  })
  const discovery = new Discovery({
    url: config.xdsAddress,
    node: {
      ip: nodeAddresses.read()[0] ?? '0.0.0.0',
      podName: `culvert-agent-${config.nodeName}`,
      podNamespace: 'culvert-system',
      metadata: { NODE_NAME: config.nodeName, CLUSTER_ID: config.clusterId },
    },
    kinds: mesh.kinds,
    token,
    rootCa: () => readFile(config.xdsRootFile, 'utf8'),
    log: log.child({ component: 'discovery' }),
    // What failed while the ca-server was away need not wait for its own next try.
    onConnected: () => {
      certificates.retryNow()
      reports.repeat()
    },
    // Whoever answers no SYN has gone; the next try may meet another replica.
    connectTimeoutMs: 3000,
    backoff: { firstMs: 50, maxMs: 5000 },
  })

  const certificates: CertificateManager = new CertificateManager({
    source: new CaClient({
      channel: caChannel,
      token,
      clusterId: config.clusterId,
      ttlSeconds: config.certificateTtlSeconds,
    }),
    log: log.child({ component: 'certificates' }),
    onFetch: result => metrics.certificateFetched(result),
  })
  const metrics = new AgentMetrics({
    version: VERSION,
    startedAtMs,
    sources: {
      certificates: () => certificates.states(),
      discovery: () => ({
        isConnected: discovery.state().isConnected,
        isSynced: mesh.isSynced,
        resources: mesh.sizes(),
      }),
      podsByState: () => countBy(pods.list(), pod => pod.state),
      heaps: () => heaps.read(),
    },
  })
  const reports: ReportClient = new ReportClient({
    channel: reportChannel,
    token,
    instance: randomUUID(),
    startedAtMs,
    log: log.child({ component: 'reports' }),
  })
  const accessLog = new AccessLog({ onDropped: lines => metrics.accessLogDropped(lines) })

  dataPlane.adopt({
    control: router,
    events: {
      traffic: (traffic, thread) => metrics.traffic(traffic, thread),
      refusals: refusals => reports.refused(refusals),
      accessLog: writes => accessLog.write(writes),
      counters: (thread, counters, dialled) => {
        metrics.threadCounters(thread, counters)
        uncaptured.dialled(thread, dialled)
      },
    },
  })
  router.onInvalidate(podUid => threads.tell({ type: 'invalidate', podUid }))
  certificates.onCertificate((podUid, certificate) =>
    threads.tell({ type: 'certificate', podUid, certificate }),
  )
  const tellRoots = () => certificates.setRoots(mesh.roots(config.trustDomain) ?? [])
  mesh.onRootsChange(tellRoots)
  if (demand) demand.onAnswer = tookMs => metrics.discoveryAnswered(tookMs)

  const guard = new RedirectGuard({
    log: log.child({ component: 'guard' }),
    onDrift: ({ podUid, drift, repairedInMs, by }) => {
      const life = pods.get(podUid)
      for (const what of drift) metrics.redirectDrift(what)
      if (drift.length > 0) metrics.redirectRepaired(repairedInMs === undefined ? 'failed' : 'repaired')
      const what = drift.join('; ')
      const authors = by.join(', ')
      life?.drifted(repairedInMs === undefined ? `${what}${authors && ` (by ${authors})`}` : '')
      if (repairedInMs !== undefined && what !== '') reports.repaired(podUid, what, authors)
      log.warn(
        { pod: life && `${life.pod.namespace}/${life.pod.name}`, drift, repairedInMs, by },
        'redirection was changed from outside',
      )
    },
  })
  const keeper = new ListenerKeeper({ runDir: config.runDir, log: log.child({ component: 'listeners' }) })
  const podsSynced = Promise.withResolvers<void>()
  const pods: Pods = new Pods(
    {
      threads,
      keeper,
      certificates,
      router,
      reports,
      guard,
      log: log.child({ component: 'pods' }),
      trustDomain: config.trustDomain,
      enrolmentOf: pod => mesh.enrolmentOf(pod),
      serviceAccountOf: pod => mesh.serviceAccountOf(pod),
      isTerminating: pod => mesh.isTerminating(pod),
    },
    () => {
      podsKnown()
      podsSynced.resolve()
    },
  )
  mesh.onEnrolmentChange(namespaces => pods.reconsider(namespaces))
  const source = podSourceFrom(config.podSource, {
    mesh,
    log: log.child({ component: 'pod-source' }),
    onHeld: (heldMs, safety) => metrics.podStartHeld(heldMs, safety),
  })
  const uncaptured: UncapturedCounters = new UncapturedCounters({ pods: () => pods.lives(), metrics, log })

  const admin = new AdminServer({
    port: config.adminPort === 0 ? undefined : config.adminPort,
    socketPath: config.adminSocket,
    log: log.child({ component: 'admin' }),
    handlers: {
      configDump: () => ({
        config,
        version: VERSION,
        discovery: discovery.state(),
        podSource: source.status(),
        router: router.counters,
        mesh: mesh.dump(),
      }),
      connections: () => threads.connections(),
      plaintext: () => pods.openPlaintext(),
      pods: () => pods.list(),
      certificates: () => certificates.states(),
      rules: name => explainPod(pods.find(name), name),
      logLevel: () => log.level,
      setLogLevel: level => {
        log.level = level
        threads.tell({ type: 'log-level', level })
      },
      quit: () => shutdown.request('asked to on the admin port'),
    },
  })
  const metricsServer = new MetricsServer({ metrics, log, port: config.metricsPort })
  const readyServer = new ReadinessServer({ readiness, log, port: config.readyPort })

  const stop = new AbortController()
  const owned: Promise<unknown>[] = []
  const own = (name: string, work: Promise<unknown>) => {
    owned.push(
      work.catch((err: unknown) => {
        if (stop.signal.aborted) return
        log.fatal({ err: errorText(err), part: name }, 'a part of the agent failed')
        shutdown.request(`${name} failed: ${errorText(err)}`)
      }),
    )
  }
  await Promise.all([admin.start(), metricsServer.start(), readyServer.start()])
  own('discovery', discovery.run(stop.signal))
  if (demand) own('what was asked for', demand.run(stop.signal))
  const reportStop = new AbortController()
  own('reports', reports.run(reportStop.signal))
  own('first picture', mesh.whenSynced(stop.signal).then(synced))
  await dataPlane.ready
  threadsReady()
  const sourceStop = new AbortController()
  own('pod source', source.run(pods, sourceStop.signal))
  // A full report makes the server forget what it does not name: only when every pod has been heard and looked at.
  own(
    'full report',
    Promise.all([mesh.whenSynced(stop.signal), podsSynced.promise])
      .then(() => pods.settled())
      .then(() => reports.complete()),
  )
  own('uncaptured counters', uncaptured.run(stop.signal))
  own(
    'memory',
    readiness
      .ready(stop.signal)
      .then(() =>
        keepMemorySmall({ log: log.child({ component: 'memory' }), release: releasePages }, stop.signal),
      ),
  )
  own(
    'announcement',
    readiness.ready(stop.signal).then(() => log.info({ tookMs: Date.now() - startedAtMs }, 'agent ready')),
  )

  await aborted(shutdown.signal)
  readiness.block(`stopping: ${shutdown.reason ?? ''}`)
  sourceStop.abort()
  // It hears of no new pods, and a report without them would take them back; the next agent speaks for all.
  reportStop.abort()
  guard.close()
  log.info({ reason: shutdown.reason, drainMs: config.drainMs }, 'agent stopping: draining open connections')
  report(await threads.drain(config.drainMs), log)
  await pods.clearAway(CLEAR_AWAY_MS)
  stop.abort()
  certificates.close()
  await Promise.all([threads.stop(), admin.close(), metricsServer.close(), readyServer.close()])
  await Promise.allSettled(owned)
  await keeper.close()
  caChannel.close()
  reportChannel.close()
  log.info({ tookMs: Date.now() - startedAtMs }, 'agent stopped')
  await accessLog.flush()
  return 0
}

/** Names what the end of the drain period cut. */
function report(cut: readonly ConnectionRecord[], log: Logger): void {
  for (const record of cut.slice(0, 1000))
    log.warn(
      {
        src: `${record.source.workload ?? record.source.ip}:${record.source.port}`,
        dst: `${record.destination.workload ?? record.destination.ip}:${record.destination.port}`,
        direction: record.direction,
        ageMs: Date.now() - record.openedAtMs,
        bytes: record.bytesSent + record.bytesReceived,
      },
      'connection cut at the end of the drain period',
    )
  log.info({ cut: cut.length }, 'drained')
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

function countBy<T>(items: readonly T[], key: (item: T) => string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1
  return counts
}
