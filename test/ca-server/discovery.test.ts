import { fromBinary } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { ipFromBytes } from '../../lib/address.ts'
import {
  NamespaceSchema,
  NodeSchema,
  PodState,
  TrustBundleSchema,
} from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  NetworkMode,
  TunnelProtocol,
  WorkloadStatus,
} from '../../lib/proto/gen/istio/workload_pb.js'
import type { KubeObject } from '../../lib/kube/objects.ts'
import { TestCa, type TestCaOptions } from '../helpers/ca-server.ts'
import { ADDRESS, AUTHORIZATION, DeltaClient } from '../helpers/delta-client.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod, kubeService, kubeSlice } from '../helpers/kube-world.ts'

const CLIENT = 'Kubernetes//Pod/shop/client'
const SERVER = 'Kubernetes//Pod/shop/server'
const ECHO = 'shop/echo.shop.svc.cluster.local'

const server = kubePod('server', { node: 'node-b', ips: ['10.98.2.10', 'fd98:2::10'], probePorts: [8080] })
const WORLD: KubeObject[] = [
  kubeNode('node-a', '10.99.0.1'),
  kubeNode('node-b', '10.99.0.2', { labels: { 'topology.kubernetes.io/zone': 'z1' } }),
  kubeNamespace('shop', ENROLLED),
  kubeNamespace('legacy'),
  kubePod('client'),
  server,
  kubePod('old', { namespace: 'legacy', ips: ['10.98.1.11'] }),
  kubeService('echo', { clusterIPs: ['10.97.0.1', 'fd97::1'] }),
  kubeSlice('echo', [server]),
]

interface Connected {
  ca: TestCa
  client: DeltaClient
}

async function connected(t: Test, options: TestCaOptions = {}, types = [ADDRESS]): Promise<Connected> {
  const ca = await TestCa.start(t, { world: WORLD, ...options })
  const client = await connect(t, ca)
  for (const type of types) client.subscribe(type)
  await client.until(() => types.every(type => client.held.has(type)))
  return { ca, client }
}

async function connect(t: Test, ca: TestCa, node = 'node-a'): Promise<DeltaClient> {
  const client = new DeltaClient(ca.clients(t, await ca.issuer.token({ node })))
  t.teardown(() => client.close())
  return client
}

await t.test('a client that subscribes hears of every workload and service', async t => {
  const { client } = await connected(t)
  t.strictSame(client.names(), ['Kubernetes//Pod/legacy/old', CLIENT, SERVER, ECHO])

  const workload = client.workload(SERVER)!
  t.match(workload, {
    uid: SERVER,
    name: 'server',
    namespace: 'shop',
    node: 'node-b',
    serviceAccount: 'server',
    trustDomain: 'cluster.local',
    clusterId: 'Kubernetes',
    tunnelProtocol: TunnelProtocol.NONE,
    networkMode: NetworkMode.STANDARD,
    status: WorkloadStatus.HEALTHY,
    canonicalName: 'server',
    canonicalRevision: 'latest',
    services: { [ECHO]: { ports: [{ servicePort: 80, targetPort: 8080 }] } },
    locality: { zone: 'z1' },
  })
  t.strictSame(workload.addresses.map(ipFromBytes), ['10.98.2.10', 'fd98:2::10'])
  t.match(client.info(SERVER), {
    podUid: 'uid-server',
    enrolment: { mesh: true, strictInbound: false },
    probePorts: [8080],
    state: PodState.POD_STATE_UNSPECIFIED,
    terminating: false,
  })
  t.equal(client.info('Kubernetes//Pod/legacy/old')?.enrolment?.mesh, false)

  const service = client.service(ECHO)!
  t.match(service, {
    name: 'echo',
    namespace: 'shop',
    hostname: 'echo.shop.svc.cluster.local',
    ports: [{ servicePort: 80, targetPort: 8080 }],
    canonical: true,
  })
  t.strictSame(
    service.addresses.map(({ address }) => ipFromBytes(address)),
    ['10.97.0.1', 'fd97::1'],
  )
})

await t.test('every type that is served answers, even with nothing', async t => {
  const prefix = 'type.googleapis.com/culvert.v1.'
  const types = [AUTHORIZATION, `${prefix}Namespace`, `${prefix}Node`, `${prefix}TrustBundle`]
  const { ca, client } = await connected(t, {}, types)
  t.strictSame(client.names(AUTHORIZATION), [])
  t.match(fromBinary(NamespaceSchema, client.bytes('shop', `${prefix}Namespace`)!), {
    name: 'shop',
    enrolment: { mesh: true, strictInbound: undefined },
  })
  const node = fromBinary(NodeSchema, client.bytes('node-a', `${prefix}Node`)!)
  t.strictSame(node.addresses.map(ipFromBytes), ['10.99.0.1'])
  t.strictSame(node.podCidrs, ['10.98.1.0/24'])
  const bundle = fromBinary(TrustBundleSchema, client.bytes('cluster.local', `${prefix}TrustBundle`)!)
  t.strictSame(bundle.roots, [ca.rootPem])
})

await t.test('a change reaches the client, and only the change', async t => {
  const { ca, client } = await connected(t)
  const before = client.responses.length
  const late = Array.from({ length: 5 }, (_, at) => kubePod(`late-${at}`, { ips: [`10.98.1.${20 + at}`] }))
  const uids = late.map((_, at) => `Kubernetes//Pod/shop/late-${at}`)
  for (const [round, uid] of uids.entries()) {
    ca.setWorld([...WORLD, ...late.slice(0, round + 1)])
    await client.until(() => client.names().includes(uid))
  }
  t.strictSame(
    client.responses.slice(before).map(({ resources }) => resources.map(({ name }) => name)),
    uids.map(uid => [uid]),
  )

  ca.setWorld([...WORLD, ...late.slice(0, -1)])
  await client.until(() => !client.names().includes(uids.at(-1)!))
  t.strictSame(client.responses.at(-1)?.removedResources, [uids.at(-1)])
})

await t.test('a pod takes tunnels when it is meant to and its agent has seen it stand', async t => {
  const { ca, client } = await connected(t)
  const { reports } = ca.clients(t, await ca.issuer.token({ node: 'node-b' }))
  const report = (state: PodState) =>
    reports.report({ instance: 'one', startedAtMs: 1n, pods: [{ podUid: 'uid-server', state }] })
  const tunnel = () => client.workload(SERVER)?.tunnelProtocol

  await report(PodState.PENDING)
  await client.until(() => client.info(SERVER)?.state === PodState.PENDING)
  t.equal(tunnel(), TunnelProtocol.NONE)
  await report(PodState.ENROLLED)
  await client.until(() => tunnel() === TunnelProtocol.HBONE)
  await report(PodState.DRIFTED)
  await client.until(() => client.info(SERVER)?.state === PodState.DRIFTED)
  t.equal(tunnel(), TunnelProtocol.HBONE)

  const unenrolled = WORLD.map(object =>
    object.kind === 'Namespace' && object.metadata.name === 'shop' ? kubeNamespace('shop') : object,
  )
  ca.setWorld(unenrolled)
  await client.until(() => tunnel() === TunnelProtocol.NONE)
  t.equal(client.info(SERVER)?.state, PodState.DRIFTED, 'what was observed is another matter')
})

await t.test('observations survive a restart, and pods do not fall back to plaintext meanwhile', async t => {
  const { ca, client } = await connected(t)
  const token = await ca.issuer.token({ node: 'node-b' })
  await ca.clients(t, token).reports.report({
    instance: 'one',
    startedAtMs: 1n,
    full: true,
    pods: [{ podUid: 'uid-server', state: PodState.ENROLLED }],
  })
  await client.until(() => client.workload(SERVER)?.tunnelProtocol === TunnelProtocol.HBONE)
  const versions = client.versions()

  await ca.restart()
  const again = await connect(t, ca)
  again.subscribe(ADDRESS, versions)
  await again.until(() => again.held.has(ADDRESS))
  t.strictSame(again.names(), [], 'nothing differs from what the client has')

  const other = kubePod('server', { node: 'node-b', ips: ['10.98.2.11'], uid: 'uid-server-new' })
  ca.setWorld(WORLD.map(object => (object === server ? other : object)))
  await again.until(() => again.workload(SERVER) !== undefined)
  t.equal(
    again.workload(SERVER)?.tunnelProtocol,
    TunnelProtocol.NONE,
    'a new pod of the same name starts anew',
  )
})

await t.test('agents that cannot report get tunnels by setting or by their node', async t => {
  const { client } = await connected(t, { env: { TUNNEL_WITHOUT_REPORT: 'true' } })
  t.equal(client.workload(SERVER)?.tunnelProtocol, TunnelProtocol.HBONE)
  t.equal(client.workload('Kubernetes//Pod/legacy/old')?.tunnelProtocol, TunnelProtocol.NONE)

  const foreign = kubeNode('node-b', '10.99.0.2', { annotations: { 'culvert.dev/agent': 'foreign' } })
  const world = WORLD.map(object => (object.metadata.name === 'node-b' ? foreign : object))
  const { client: second } = await connected(t, { world })
  t.equal(second.workload(SERVER)?.tunnelProtocol, TunnelProtocol.HBONE)
  t.equal(second.workload(CLIENT)?.tunnelProtocol, TunnelProtocol.NONE)
})

await t.test('pods that are no peers of their own are told apart', async t => {
  const world = [
    ...WORLD,
    kubePod('daemon', { hostNetwork: true, ips: ['10.99.0.1'] }),
    kubePod('done', { phase: 'Succeeded', ips: ['10.98.1.20'] }),
    kubePod('waiting', { phase: 'Pending', ips: [], node: '' }),
  ]
  const { client } = await connected(t, { world })
  t.match(client.workload('Kubernetes//Pod/shop/daemon'), { networkMode: NetworkMode.HOST_NETWORK })
  t.equal(client.info('Kubernetes//Pod/shop/daemon')?.enrolment?.mesh, false)
  t.notOk(client.names().some(name => name.endsWith('/done') || name.endsWith('/waiting')))
})

await t.test('a pod is told of from when it has a node: who it is, and not yet where', async t => {
  const starting = kubePod('starting', { phase: 'Pending', ips: [], ready: false })
  const world = [...WORLD.slice(0, -1), kubeSlice('echo', [server, starting])]
  const name = 'Kubernetes//Pod/shop/starting'
  const { ca, client } = await connected(t, {
    world: [...world, starting],
    env: { TUNNEL_WITHOUT_REPORT: 'true' },
  })
  t.match(client.workload(name), {
    serviceAccount: 'starting',
    node: 'node-a',
    addresses: [],
    services: {},
    tunnelProtocol: TunnelProtocol.NONE,
    status: WorkloadStatus.UNHEALTHY,
  })
  t.match(client.info(name), { podUid: 'uid-starting', enrolment: { mesh: true } })

  ca.setWorld([...world, kubePod('starting', { ips: ['10.98.1.12'] })])
  await client.until(() => client.workload(name)?.status === WorkloadStatus.HEALTHY)
  const { addresses, tunnelProtocol, services } = client.workload(name)!
  t.strictSame(addresses.map(ipFromBytes), ['10.98.1.12'])
  t.equal(tunnelProtocol, TunnelProtocol.HBONE)
  t.strictSame(Object.keys(services), [ECHO])
  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['/10.98.1.12'] })
  const { length } = client.responses
  await client.until(() => client.responses.length > length)
  t.strictSame(
    client.responses.at(-1)?.resources.map(({ name }) => name),
    [name, '/10.98.1.12'],
    'and can be asked for by its address',
  )
})

await t.test('readiness follows the slices, unless the service publishes what is not ready', async t => {
  const world = [...WORLD.slice(0, -1), kubeSlice('echo', [server], { ready: false })]
  const { ca, client } = await connected(t, { world })
  t.equal(client.workload(SERVER)?.status, WorkloadStatus.UNHEALTHY)

  const publishing = kubeService('echo', { publishNotReadyAddresses: true })
  ca.setWorld([...world.slice(0, -2), publishing, kubeSlice('echo', [server])])
  await client.until(() => client.service(ECHO)?.loadBalancing?.healthPolicy === HealthPolicy.ALLOW_ALL)
  await client.until(() => client.workload(SERVER)?.status === WorkloadStatus.HEALTHY)
})

await t.test('endpoints that are no pods are workloads too', async t => {
  const slice = kubeSlice(
    'echo',
    [],
    {},
    {
      endpoints: ['192.0.2.1', '10.99.0.1'].map(address => ({
        addresses: [address],
        ready: true,
        serving: true,
        terminating: false,
      })),
    },
  )
  const { ca, client } = await connected(t, { world: [...WORLD.slice(0, -1), slice] })
  const prefix = 'Kubernetes/discovery.k8s.io/EndpointSlice/shop/echo-v4'
  t.match(client.workload(`${prefix}/192.0.2.1`), {
    networkMode: NetworkMode.STANDARD,
    services: { [ECHO]: { ports: [{ servicePort: 80, targetPort: 8080 }] } },
  })
  t.match(client.workload(`${prefix}/10.99.0.1`), { networkMode: NetworkMode.HOST_NETWORK })
  ca.setWorld(WORLD)
  await client.until(() => !client.names().some(name => name.startsWith(prefix)))
})

await t.test('a client that comes back is sent differences only', async t => {
  const { ca, client } = await connected(t)
  const versions = client.versions()
  await client.close()
  const changed = WORLD.filter(object => object.metadata.name !== 'old').map(object =>
    object === server ? kubePod('server', { node: 'node-b', ips: ['10.98.2.99'] }) : object,
  )
  ca.setWorld(changed)
  await ca.line({ msg: 'world file loaded', objects: changed.length })
  const again = await connect(t, ca)
  again.subscribe(ADDRESS, { ...versions, 'Kubernetes//Pod/shop/never': 'x' })
  await again.until(() => again.workload(SERVER) !== undefined)
  t.strictSame(again.names(), [SERVER])
  t.strictSame(again.responses.flatMap(({ removedResources }) => removedResources).sort(), [
    'Kubernetes//Pod/legacy/old',
    'Kubernetes//Pod/shop/never',
  ])
})

await t.test('a client may ask by name, address or service instead of for everything', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const client = await connect(t, ca, 'node-c')
  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] })
  await client.until(() => client.responses.length === 1)
  t.strictSame(client.names(), [], 'subscribed to nothing, answered with nothing')

  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['/10.98.1.10'] })
  await client.until(() => client.responses.length === 2)
  t.strictSame(
    client.names(),
    ['/10.98.1.10', CLIENT],
    'what is asked for by an address is there under it, too',
  )
  t.same(client.bytes('/10.98.1.10'), client.bytes(CLIENT))
  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['/10.97.0.1'] })
  await client.until(() => client.responses.length === 3)
  t.strictSame(
    client.responses.at(-1)?.resources.map(({ name }) => name),
    [ECHO, SERVER, '/10.97.0.1'],
    'a virtual address brings its service and endpoints, and itself when all are there',
  )
  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['/10.98.1.12'] })
  await client.until(() => client.responses.length === 4)
  t.strictSame(client.responses.at(-1)?.removedResources, ['/10.98.1.12'], 'there is none')

  ca.setWorld([
    ...WORLD,
    kubePod('late', { ips: ['10.98.1.12'] }),
    kubePod('unasked', { ips: ['10.98.1.13'] }),
  ])
  await client.until(() => client.responses.length === 5)
  const LATE = 'Kubernetes//Pod/shop/late'
  t.strictSame(
    client.responses.at(-1)?.resources.map(({ name }) => name),
    [LATE, '/10.98.1.12'],
    'and now there is one',
  )
  ca.setWorld(WORLD)
  await client.until(() => client.responses.length === 6)
  t.strictSame(client.responses.at(-1)?.removedResources, [LATE, '/10.98.1.12'])

  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: [CLIENT] })
  await client.until(() => client.responses.length === 7)
  t.strictSame(
    client.responses.at(-1)?.resources.map(({ name }) => name),
    [CLIENT],
    'asked for again, sent again',
  )
})

await t.test('a client that asked by name and comes back goes on where it was', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const client = await connect(t, ca, 'node-c')
  // Names without versions, addresses among them, as a ztunnel sends them.
  client.send({
    typeUrl: ADDRESS,
    resourceNamesSubscribe: ['*'],
    resourceNamesUnsubscribe: ['*'],
    initialResourceVersions: { '/10.97.0.1': '', [ECHO]: '', [SERVER]: '', 'Kubernetes//Pod/shop/gone': '' },
  })
  await client.until(() => client.responses.length === 1)
  t.strictSame(client.names(), ['/10.97.0.1', SERVER, ECHO])
  t.strictSame(client.responses[0]?.removedResources, ['Kubernetes//Pod/shop/gone'])
  const moved = kubePod('server', { node: 'node-b', ips: ['10.98.2.99'] })
  ca.setWorld(WORLD.map(object => (object === server ? moved : object)))
  await client.until(() => client.responses.length === 2)
  t.strictSame(
    client.responses[1]?.resources.map(({ name }) => name),
    [SERVER],
  )
})

await t.test('an agent that asks by name is given the pods of its own node unasked', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const client = await connect(t, ca, 'node-b')
  client.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] })
  await client.until(() => client.names().length > 0)
  t.strictSame(client.names(), [SERVER])
  ca.setWorld([...WORLD, kubePod('late', { node: 'node-b', ips: ['10.98.2.12'] }), kubePod('other')])
  await client.until(() => client.names().length > 1)
  t.strictSame(client.names(), ['Kubernetes//Pod/shop/late', SERVER])
})

await t.test('a refusal by the client is logged, and does not stop what follows', async t => {
  const { ca, client } = await connected(t)
  client.send({ typeUrl: ADDRESS, responseNonce: '1', errorDetail: { code: 13, message: 'no such field' } })
  await ca.line({ msg: 'discovery client refused a response', err: 'no such field' })
  ca.setWorld([...WORLD, kubePod('late', { ips: ['10.98.1.12'] })])
  await client.until(() => client.names().includes('Kubernetes//Pod/shop/late'))
  t.match(await ca.metrics(), 'culvert_ca_discovery_refused_total{type="istio.workload.Address"} 1')
})

await t.test('a type that is not served is ignored with a line', async t => {
  const { ca, client } = await connected(t)
  client.subscribe('type.googleapis.com/envoy.config.cluster.v3.Cluster')
  await ca.line({ msg: 'discovery type not served' })
  t.equal(client.failure, undefined)
})

await t.test('only trusted agents bound to a node may follow', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const cases = [
    [await ca.issuer.token({ expiresIn: -60 }), Code.Unauthenticated],
    [await ca.issuer.token({ serviceAccount: 'default' }), Code.PermissionDenied],
    [await ca.issuer.token({ node: undefined }), Code.PermissionDenied],
  ] as const
  for (const [token, code] of cases) {
    const client = new DeltaClient(ca.clients(t, token))
    client.subscribe(ADDRESS)
    await client.ended
    t.match(client.failure, { code })
  }
})

await t.test('streams come and go without a trace', async t => {
  const { ca, client } = await connected(t)
  const second = await connect(t, ca)
  second.subscribe(ADDRESS)
  await second.until(() => second.held.has(ADDRESS))
  t.match(await ca.metrics(), 'culvert_ca_discovery_streams 2')
  await second.close()
  client.halfClose()
  await client.ended
  t.equal(client.failure, undefined, 'a client that has said all is let go in peace')
  while (!(await ca.metrics()).includes('culvert_ca_discovery_streams 0'));
  t.notOk(ca.lines.some(({ msg }) => msg === 'call failed'))
})

await t.test('nothing is told before the world is known', async t => {
  const ca = await TestCa.start(t)
  const client = await connect(t, ca)
  client.subscribe(ADDRESS)
  await ca.line({ msg: 'discovery type subscribed' })
  t.equal(client.responses.length, 0)
  ca.setWorld(WORLD)
  await client.until(() => client.names().length === 4)
})

await t.test('a world file that cannot be used changes nothing', async t => {
  const { ca, client } = await connected(t)
  ca.replace('cluster.yaml', 'kind: Pod\nmetadata: {')
  await ca.line({ msg: 'world file not usable, nothing changes' })
  ca.replace('cluster.yaml', '')
  await ca.line({
    msg: 'world file not usable, nothing changes',
    err: `${ca.file('cluster.yaml')} holds no objects`,
  })
  ca.setWorld([...WORLD, kubePod('late', { ips: ['10.98.1.12'] })])
  await client.until(() => client.names().length === 5)
  t.strictSame(
    client.responses.flatMap(({ removedResources }) => removedResources),
    [],
  )
})

await t.test('annotations that are not understood are logged once and carried along', async t => {
  const odd = kubeNamespace('shop', { ...ENROLLED, 'culvert.dev/mtls': 'perhaps' })
  const world = WORLD.map(object => (object.metadata.name === 'shop' ? odd : object))
  const { ca, client } = await connected(t, { world })
  t.match(client.info(SERVER)?.enrolment?.problems, [/culvert.dev\/mtls: 'perhaps'/])
  ca.setWorld([...world, kubePod('late', { ips: ['10.98.1.12'] })])
  await client.until(() => client.names().length === 5)
  t.equal(ca.lines.filter(({ msg }) => msg === 'annotations not understood').length, 1)
})
