/**
 * A program: the ca-server's own discovery, certificates and reports over a cluster of any size. The ca-server itself reads
 * its cluster from a file, and a file with a hundred thousand pods is read for minutes; here the cluster is put straight
 * into its place. Writes roots and the agent's token into a directory, and the port to its standard output. From a number
 * on its standard input on, so many pods a second change; 0 ends that.
 * Usage: node scale-server.ts DIRECTORY PODS
 */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createConnectRouter } from '@connectrpc/connect'
import { Authority } from '../ca-server/authority/authority.ts'
import { Calls } from '../ca-server/calls.ts'
import { discoveryService } from '../ca-server/discovery/service.ts'
import { RateLimit } from '../ca-server/issuance/rate-limit.ts'
import { certificateService } from '../ca-server/issuance/service.ts'
import { Listener } from '../ca-server/listener.ts'
import { createMetrics } from '../ca-server/metrics.ts'
import { Refusal } from '../ca-server/refusal.ts'
import { reportService } from '../ca-server/reports/service.ts'
import { createLogger } from '../lib/log.ts'
import { ReportService } from '../lib/proto/gen/culvert/v1/report_pb.js'
import { AggregatedDiscoveryService } from '../lib/proto/gen/envoy/discovery_pb.js'
import { IstioCertificateService } from '../lib/proto/gen/istio/ca_pb.js'
import { OWN_NODE, podOf, publishedCluster } from './micro/cluster.ts'

const DAY_MS = 86_400_000
const TRUST_DOMAIN = 'cluster.local'

const [directory = '', pods = ''] = process.argv.slice(2)
const log = createLogger({}, 'silent')
const metrics = createMetrics()
const authority = await Authority.open({
  trustDomain: TRUST_DOMAIN,
  source: { kind: 'own-root', directory: join(directory, 'ca') },
  engine: 'node',
  log,
})
const { world, observed, publisher } = await publishedCluster(Number(pods), () => authority.roots, log)

const secret = randomBytes(24).toString('hex')
const agent = {
  node: OWN_NODE,
  podName: 'culvert-agent',
  podUid: 'uid-agent',
  namespace: 'culvert-system',
  serviceAccount: 'culvert-agent',
  audience: 'culvert-ca',
}
const calls = new Calls({
  authenticator: {
    authenticate: async token => {
      if (token !== secret) throw new Refusal('token-malformed', 'not the token of this run')
      return agent
    },
  },
  trustedAccounts: new Set(['culvert-system/culvert-agent']),
  metrics,
  log,
})
const router = createConnectRouter({ grpcWeb: false, acceptCompression: [], requestGate: calls.gate })
  .service(
    IstioCertificateService,
    certificateService({
      authority,
      world,
      trustDomain: TRUST_DOMAIN,
      defaultTtlMs: DAY_MS,
      maxTtlMs: DAY_MS,
      rateLimit: new RateLimit({ perSecond: 0, burst: 1 }),
      calls,
      metrics,
      log,
    }),
  )
  .service(ReportService, reportService({ observed, isSynced: () => true, calls, metrics, log }))
  .service(AggregatedDiscoveryService, discoveryService({ publisher, calls, metrics, log }))

const certificate = await authority.issueServing({ dns: ['localhost'], ips: ['127.0.0.1'] }, DAY_MS)
const { port } = await Listener.open({ port: 0, address: '127.0.0.1', certificate, router, metrics, log })
writeFileSync(join(directory, 'root.pem'), authority.roots.join(''))
writeFileSync(join(directory, 'token'), secret, { mode: 0o600 })
process.stdout.write(`${port}\n`)

/** A tenth of a second's changes, in pods all over the cluster; each goes to and fro. */
let changes = 0
function change(perSecond: number): void {
  const upserted = Array.from({ length: Math.round(perSecond / 10) }, () => {
    const at = (++changes * 7919) % Number(pods)
    return podOf(at, Math.floor((changes * 7919) / Number(pods)) % 2 === 1)
  })
  world.apply(upserted, [])
}
let changing: NodeJS.Timeout | undefined
createInterface({ input: process.stdin }).on('line', line => {
  clearInterval(changing)
  changing = Number(line) > 0 ? setInterval(() => change(Number(line)), 100) : undefined
})
