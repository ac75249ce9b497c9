import t from 'tap'
import { parseManifest, stringifyManifest } from '../../../lib/kube/manifest.ts'
import type {
  KubeEndpointSlice,
  KubeNode,
  KubeObject,
  KubePod,
  KubeService,
} from '../../../lib/kube/objects.ts'
import { Cluster } from '../../../lab/cluster/cluster.ts'

function pod(
  name: string,
  more: { labels?: Record<string, string>; node?: string; ips?: string[]; host?: boolean } = {},
): KubePod {
  return {
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'default',
      uid: '',
      labels: more.labels ?? {},
      annotations: { 'example.com/kept': 'yes', ...(more.node && { 'culvert.dev/lab-node': more.node }) },
    },
    spec: {
      serviceAccountName: 'someone',
      hostNetwork: more.host ?? false,
      containers: [{ name: 'a', ports: [{ name: 'web', containerPort: 8080 }] }],
      probePorts: [],
    },
    status: { phase: 'Pending', podIPs: more.ips ?? [], ready: false },
  }
}

function service(name: string, spec: Partial<KubeService['spec']> = {}): KubeService {
  return {
    kind: 'Service',
    metadata: { name, namespace: 'default', uid: '' },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [],
      selector: { app: 'echo' },
      ports: [
        { name: 'http', port: 80, targetPort: 'web', protocol: 'TCP' },
        { name: 'raw', port: 7, targetPort: 7000, protocol: 'TCP' },
      ],
      publishNotReadyAddresses: false,
      ...spec,
    },
  }
}

const newCluster = () => new Cluster('x', ['node-a', 'node-b'], () => undefined)
const slicesOf = (cluster: Cluster) =>
  cluster.objects().filter((object): object is KubeEndpointSlice => object.kind === 'EndpointSlice')
const named = (objects: KubeObject[], kind: string, name: string) =>
  objects.find(object => object.kind === kind && object.metadata.name === name)

await t.test('a cluster without pods has what every cluster has', async t => {
  const objects = newCluster().objects()
  t.match(named(objects, 'Node', 'node-b'), {
    spec: { podCIDRs: ['10.98.2.0/24', 'fd98:2::/64'] },
    status: {
      addresses: [
        { type: 'InternalIP', address: '10.99.0.12' },
        { type: 'InternalIP', address: 'fd99::c' },
        { type: 'Hostname', address: 'node-b' },
      ],
    },
  })
  t.ok(named(objects, 'Namespace', 'culvert-system'))
  t.ok(named(objects, 'ServiceAccount', 'culvert-agent'))
  t.match(named(objects, 'Pod', 'culvert-agent-node-a'), {
    spec: { hostNetwork: true, nodeName: 'node-a', serviceAccountName: 'culvert-agent' },
    status: { podIPs: ['10.99.0.11', 'fd99::b'] },
  })
})

await t.test('what is written for the ca-server is real enough to be read back', async t => {
  const cluster = newCluster()
  cluster.put(service('echo'))
  cluster.change(cluster.admit(pod('a', { labels: { app: 'echo' } })).key, { phase: 'Running', ready: true })
  const objects = cluster.objects()
  t.strictSame(parseManifest(stringifyManifest(objects), 'x'), objects)
})

await t.test('pods get a uid, a node in turn or the one they ask for, and addresses', async t => {
  const cluster = newCluster()
  const [a, b, c] = [pod('a'), pod('b'), pod('c', { node: 'node-b' })].map(wanted => cluster.admit(wanted))
  t.match(a, {
    node: 'node-a',
    netns: 'culvert-x-a',
    pod: { status: { podIPs: ['10.98.1.2', 'fd98:1::2'] } },
  })
  t.match(b, {
    node: 'node-b',
    pod: { status: { podIPs: ['10.98.2.2', 'fd98:2::2'], hostIP: '10.99.0.12' } },
  })
  t.match(c, { node: 'node-b', pod: { spec: { nodeName: 'node-b' } } })
  t.match(a!.pod.metadata.uid, /^[0-9a-f-]{36}$/)
  t.strictSame(
    c!.pod.metadata.annotations,
    { 'example.com/kept': 'yes' },
    'the lab’s own annotation is taken off',
  )
  t.ok(named(cluster.objects(), 'ServiceAccount', 'someone'), 'an account that a pod names exists')
})

await t.test('a pod that cannot be placed is refused and leaves nothing', async t => {
  const cluster = newCluster()
  cluster.admit(pod('a', { ips: ['10.98.1.77'], node: 'node-a' }))
  t.throws(() => cluster.admit(pod('a')), { code: 'LAB', message: /already exists/ })
  t.throws(() => cluster.admit(pod('b', { node: 'node-x' })), { message: /node 'node-x' does not exist/ })
  t.throws(() => cluster.admit(pod('b', { ips: ['10.98.1.77'], node: 'node-a' })), { message: /in use/ })
  t.throws(() => cluster.admit({ ...pod('b'), metadata: { name: 'b', namespace: 'no', uid: '' } }), {
    message: /no such Namespace/,
  })
  t.equal(cluster.pods().length, 1)
})

await t.test(
  'the agent of a node is told of its pods once they are built, and never of host-network ones',
  async t => {
    const cluster = newCluster()
    const { key } = cluster.admit(pod('a', { node: 'node-a' }))
    const host = cluster.admit(pod('h', { node: 'node-a', host: true }))
    t.match(host, { netns: 'culvert-x-node-a', pod: { status: { podIPs: ['10.99.0.11', 'fd99::b'] } } })
    t.strictSame(cluster.localPods('node-a'), [])
    cluster.change(key, { isBuilt: true })
    cluster.change(host.key, { isBuilt: true })
    t.match(cluster.localPods('node-a'), [{ name: 'a', netns: '/run/netns/culvert-x-a', terminating: false }])
    t.strictSame(cluster.localPods('node-b'), [])
    cluster.change(key, { graceSeconds: 3 })
    t.match(cluster.localPods('node-a'), [{ terminating: true }])
    t.match(cluster.pod(key)?.pod.metadata, { deletionGracePeriodSeconds: 3, deletionTimestamp: /Z$/ })
  },
)

await t.test('services keep their addresses; headless ones have none', async t => {
  const cluster = newCluster()
  const ips = (name: string) => (cluster.get(`Service default/${name}`) as KubeService).spec.clusterIPs
  cluster.put(service('a'))
  cluster.put(service('six', { ipFamilies: ['IPv6'] }))
  cluster.put(service('fixed', { clusterIPs: ['10.97.9.9'] }))
  cluster.put(service('headless', { clusterIPs: ['None'] }))
  cluster.put(service('a', { sessionAffinity: 'ClientIP' }))
  t.strictSame(ips('a'), ['10.97.0.10', 'fd97::a'])
  t.strictSame(ips('six'), ['fd97::b'])
  t.strictSame(ips('fixed'), ['10.97.9.9'])
  t.strictSame(ips('headless'), ['None'])
  t.throws(() => cluster.put(service('other', { clusterIPs: ['10.97.9.9'] })), { code: 'LAB' })
})

await t.test('endpoints follow the selector and the pods’ readiness', async t => {
  const cluster = newCluster()
  cluster.put(service('echo'))
  const { key, pod: admitted } = cluster.admit(pod('a', { labels: { app: 'echo' } }))
  cluster.admit(pod('other'))
  cluster.change(key, { phase: 'Running', ready: true })
  const [v4, v6, ...rest] = slicesOf(cluster)
  t.strictSame(rest, [])
  t.match(v4, {
    metadata: { name: 'echo-ipv4', namespace: 'default' },
    addressType: 'IPv4',
    serviceName: 'echo',
    ports: [
      { name: 'http', port: 8080, protocol: 'TCP' },
      { name: 'raw', port: 7000, protocol: 'TCP' },
    ],
    endpoints: [
      {
        addresses: ['10.98.1.2'],
        ready: true,
        serving: true,
        terminating: false,
        nodeName: 'node-a',
        targetRef: { kind: 'Pod', name: 'a', uid: admitted.metadata.uid },
      },
    ],
  })
  t.match(v6, { addressType: 'IPv6', endpoints: [{ addresses: ['fd98:1::2'] }] })
  t.equal(slicesOf(cluster)[0]?.metadata.uid, v4?.metadata.uid)
  cluster.change(key, { graceSeconds: 1 })
  t.match(slicesOf(cluster)[0]?.endpoints, [{ ready: false, serving: true, terminating: true }])
  cluster.forget(key)
  t.strictSame(slicesOf(cluster), [])
})

await t.test('endpoints say what their service wants: unready ones, and near ones', async t => {
  const cluster = newCluster()
  const at = { labels: { 'topology.kubernetes.io/zone': 'z1' } }
  const node = cluster.get('Node node-a') as KubeNode
  cluster.put({ ...node, metadata: { ...node.metadata, ...at } })
  const { key } = cluster.admit(pod('a', { labels: { app: 'echo' }, node: 'node-a' }))
  cluster.change(key, { phase: 'Running', ready: false })
  const only = () => slicesOf(cluster)[0]?.endpoints[0]
  cluster.put(service('echo', { publishNotReadyAddresses: true }))
  t.match(only(), { ready: true, serving: false, zone: 'z1', hints: undefined })
  cluster.put(service('echo', { trafficDistribution: 'PreferSameZone' }))
  t.match(only(), { ready: false, hints: { forZones: ['z1'], forNodes: [] } })
  cluster.put(service('echo', { trafficDistribution: 'PreferSameNode' }))
  t.match(only(), { hints: { forZones: ['z1'], forNodes: ['node-a'] } })
})

await t.test('slices that the file gives are not made a second time', async t => {
  const cluster = newCluster()
  cluster.put(service('echo'))
  cluster.admit(pod('a', { labels: { app: 'echo' } }))
  cluster.put({
    kind: 'EndpointSlice',
    metadata: {
      name: 'mine',
      namespace: 'default',
      uid: '',
      labels: { 'kubernetes.io/service-name': 'echo' },
    },
    addressType: 'IPv4',
    serviceName: 'echo',
    endpoints: [],
    ports: [],
  })
  t.strictSame(
    slicesOf(cluster).map(({ metadata }) => metadata.name),
    ['mine'],
  )
})

await t.test('annotations change in place, of pods and of namespaces', async t => {
  const cluster = newCluster()
  const { key, pod: before } = cluster.admit(pod('a'))
  cluster.relabel(key, { annotations: { 'culvert.dev/mtls': 'strict' } })
  cluster.relabel('Namespace default', { annotations: { 'culvert.dev/mesh': 'enabled' } })
  t.match(cluster.get(key)?.metadata, {
    uid: before.metadata.uid,
    annotations: { 'culvert.dev/mtls': 'strict' },
  })
  t.match(cluster.get('Namespace default')?.metadata.annotations, { 'culvert.dev/mesh': 'enabled' })
  t.throws(() => cluster.relabel('Namespace nope', {}), {
    code: 'LAB',
    message: 'there is no Namespace nope',
  })
})
