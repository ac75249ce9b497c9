import { Code } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { configFrom } from '../../ca-server/config.ts'
import { startServer } from '../../ca-server/server.ts'
import { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { TunnelProtocol } from '../../lib/proto/gen/istio/workload_pb.js'
import { becomes } from '../helpers/becomes.ts'
import { TestCa } from '../helpers/ca-server.ts'
import { ADDRESS, DeltaClient } from '../helpers/delta-client.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../helpers/kube-world.ts'
import { quietLog } from '../helpers/quiet-log.ts'
import { ControlPlane } from '../helpers/control-plane.ts'

const WORLD = [
  kubeNode('node-a', '10.99.0.1'),
  kubeNamespace('shop', ENROLLED),
  kubePod('one'),
  kubePod('two', { ips: ['10.98.1.11'] }),
]
const ONE = 'Kubernetes//Pod/shop/one'

/** One that knows the cluster. */
async function replica(t: Test, cluster: ControlPlane, name: string): Promise<TestCa> {
  const ca = await TestCa.start(t, { env: { ...cluster.env, POD_NAME: name } })
  await becomes(async () => (await fetch(`http://127.0.0.1:${ca.metricsPort}/healthz/ready`)).ok)
  return ca
}

async function stream(t: Test, ca: TestCa): Promise<DeltaClient> {
  const client = new DeltaClient(ca.clients(t, await ca.issuer.token()))
  t.teardown(() => client.close())
  client.subscribe(ADDRESS)
  await client.until(() => client.workload(ONE) !== undefined)
  return client
}

const takesTunnels = (client: DeltaClient): boolean =>
  client.workload(ONE)?.tunnelProtocol === TunnelProtocol.HBONE

await t.test(
  'replicas have one root, which they publish, and tell each other what agents observed',
  async t => {
    const cluster = await ControlPlane.start(t, WORLD)
    const [a, b] = await Promise.all([replica(t, cluster, 'ca-a'), replica(t, cluster, 'ca-b')])
    t.equal(a.rootPem, b.rootPem)
    await cluster.kept.until(() =>
      cluster.kept.objects.has('/api/v1/namespaces/culvert-system/configmaps/culvert-root'),
    )
    t.match(cluster.kept.objects.get('/api/v1/namespaces/culvert-system/configmaps/culvert-root'), {
      data: { 'root-cert.pem': a.rootPem },
    })

    const { reports } = a.clients(t, await a.issuer.token())
    const heard = await stream(t, b)
    const pod = { podUid: 'uid-one', observedAtMs: BigInt(Date.now()) }
    await reports.report({ instance: 'agent', pods: [{ ...pod, state: PodState.ENROLLED }] })
    await heard.until(() => takesTunnels(heard))
    t.match(cluster.status('shop/one'), /^enrolled \(since /)
    await reports.report({
      instance: 'agent',
      pods: [{ ...pod, state: PodState.DRIFTED, detail: 'IPv4 nat: x' }],
    })
    await b.line({ msg: 'pod observed', state: 'drifted', detail: 'IPv4 nat: x' })
    await reports.report({ instance: 'agent', pods: [{ ...pod, state: PodState.NOT_ENROLLED }] })
    await heard.until(() => !takesTunnels(heard))
    t.equal(cluster.status('shop/one'), undefined)
  },
)

await t.test('after a start a replica knows what was observed, and has the same root', async t => {
  const cluster = await ControlPlane.start(t, WORLD)
  const first = await replica(t, cluster, 'ca-a')
  const root = first.rootPem
  const { reports } = first.clients(t, await first.issuer.token())
  await reports.report({ instance: 'agent', pods: [{ podUid: 'uid-one', state: PodState.ENROLLED }] })
  await cluster.kept.until(() => cluster.status('shop/one') !== undefined)
  await first.stop()
  const second = await replica(t, cluster, 'ca-b')
  t.equal(second.rootPem, root)
  t.equal(takesTunnels(await stream(t, second)), true)
})

await t.test('one replica leads; when it stops, the other one does, and looks at the cluster', async t => {
  const cluster = await ControlPlane.start(t, [
    ...WORLD,
    kubePod('odd', { ips: ['10.98.1.12'], meta: { annotations: { 'culvert.dev/mtls': 'stern' } } }),
  ])
  const a = await replica(t, cluster, 'ca-a')
  await a.line({ msg: 'leading' })
  const b = await replica(t, cluster, 'ca-b')
  t.match(await a.metrics(), 'culvert_ca_leader 1')
  t.match(await b.metrics(), 'culvert_ca_leader 0')
  await a.stop()
  await b.line({ msg: 'leading' })
  const events = (): unknown[] => [...cluster.kept.objects.values()].filter(({ kind }) => kind === 'Event')
  await cluster.kept.until(() => events().length > 0)
  t.match(events()[0], { reason: 'AnnotationIgnored', regarding: { name: 'odd' } })
})

await t.test('what agents tell of refusals and repairs becomes Events', async t => {
  const cluster = await ControlPlane.start(t, WORLD)
  const ca = await replica(t, cluster, 'ca-a')
  const { reports } = ca.clients(t, await ca.issuer.token())
  await ca.clients(t, await ca.issuer.token({ node: 'node-b' })).reports.report({
    instance: 'elsewhere',
    refusals: [{ podUid: 'uid-two', reason: 'strict', peer: 'a lie', count: 1 }],
  })
  await reports.report({
    instance: 'agent',
    refusals: [{ podUid: 'uid-one', reason: 'strict', peer: 'shop/two', port: 8080, count: 3 }],
    repairs: [{ podUid: 'uid-two', what: 'IPv4 nat: gone', by: 'nft (pid 7)', count: 1 }],
  })
  const events = () => [...cluster.kept.objects.values()].filter(({ kind }) => kind === 'Event')
  await cluster.kept.until(() => events().length === 2)
  t.match(events(), [
    {
      reason: 'PlaintextRefused',
      regarding: { name: 'one' },
      series: { count: 3 },
      reportingInstance: 'ca-a',
    },
    { reason: 'RedirectionRepaired', regarding: { name: 'two' } },
  ])
})

await t.test('a token that cannot be checked is no refusal: the agent is to come again', async t => {
  const cluster = await ControlPlane.start(t, WORLD)
  const ca = await replica(t, cluster, 'ca-a')
  const known = ca.clients(t, await ca.issuer.token()).reports
  await known.report({ instance: 'agent' })
  const { fault } = cluster.kept
  cluster.kept.fault = request => (request.path.endsWith('/tokenreviews') ? { status: 503 } : fault(request))
  const { reports } = ca.clients(t, await ca.issuer.token({ node: 'node-b' }))
  await t.rejects(reports.report({ instance: 'agent' }), { code: Code.Unavailable, rawMessage: 'try again' })
  t.match(await ca.metrics(), 'culvert_ca_refusals_total{reason="token-unchecked"} 1')
  await known.report({ instance: 'agent' })
  cluster.kept.fault = fault
  await reports.report({ instance: 'agent' })
})

await t.test('until there is something to sign with, it says so, and can be stopped', async t => {
  const cluster = await ControlPlane.start(t, WORLD)
  const { fault } = cluster.kept
  let isAway = true
  cluster.kept.fault = request => (isAway ? { status: 503 } : fault(request))
  const config = configFrom({
    ...cluster.env,
    LISTEN_PORT: '0',
    METRICS_PORT: '0',
    LISTEN_ADDRESS: '127.0.0.1',
  })
  const stopping = new AbortController()
  const waiting = startServer({ ...config, metricsPort: 0 }, quietLog().log, stopping.signal)
  await cluster.kept.until(() => cluster.kept.requests.length > 0)
  stopping.abort()
  await t.rejects(waiting, { code: 'KUBERNETES' })

  const { log, lines } = quietLog()
  const starting = startServer(config, log)
  const before = cluster.kept.requests.length
  await cluster.kept.until(() => cluster.kept.requests.length > before)
  await becomes(() => lines.some(({ msg }) => msg.startsWith('cannot read')))
  isAway = false
  const server = await starting
  t.teardown(() => server.stop())
  t.ok(server.port > 0)
})
