/** The agent's own clients against the server: what one sends, the other takes. */
import { X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import { CaClient } from '../../agent/identity/ca-client.ts'
import { Channel } from '../../agent/identity/channel.ts'
import { PodState, ReportClient } from '../../agent/identity/report-client.ts'
import { Discovery } from '../../agent/mesh/discovery.ts'
import { Mesh } from '../../agent/mesh/mesh.ts'
import { TestCa } from '../helpers/ca-server.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod, kubeService, kubeSlice } from '../helpers/kube-world.ts'
import { quietLog } from '../helpers/quiet-log.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const server = kubePod('server', { node: 'node-b', ips: ['10.98.2.10'] })
const WORLD = [
  kubeNode('node-a', '10.99.0.1'),
  kubeNode('node-b', '10.99.0.2'),
  kubeNamespace('shop', ENROLLED),
  kubePod('client'),
  server,
  kubeService('echo'),
  kubeSlice('echo', [server]),
]

function channelTo(t: Test, ca: TestCa): Channel {
  const channel = new Channel({ url: new URL(`https://127.0.0.1:${ca.port}`), roots: () => ca.rootPem })
  t.teardown(() => channel.close())
  return channel
}

await t.test('the agent gets a certificate that it accepts, and a refusal that it understands', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const client = new CaClient({
    channel: channelTo(t, ca),
    token: () => ca.issuer.token(),
    clusterId: 'Kubernetes',
    ttlSeconds: 20,
  })
  const { signal } = new AbortController()
  const issued = await client.issue({ podUid: 'uid-client', identity: CLIENT, bundle: [], signal })
  t.match(issued.key, 'PRIVATE KEY')
  const bundle = [new X509Certificate(ca.rootPem)]
  const wrong = client.issue({ podUid: 'uid-server', identity: CLIENT, bundle, signal })
  await t.rejects(wrong, { name: 'CaError', failure: 'refused' })
  await ca.line({ reason: 'pod-other-node' })
})

await t.test('what one agent reports reaches the mesh of another', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { log } = quietLog()
  const stopping = new AbortController()
  const mesh = new Mesh({ nodeName: 'node-a' })
  const discovery = new Discovery({
    url: new URL(`https://127.0.0.1:${ca.port}`),
    node: { ip: '10.99.0.1', podName: 'culvert-agent-a', podNamespace: 'culvert-system' },
    kinds: mesh.kinds,
    token: () => ca.issuer.token(),
    rootCa: () => Promise.resolve(ca.rootPem),
    log,
  })
  const reports = new ReportClient({
    channel: channelTo(t, ca),
    token: () => ca.issuer.token({ node: 'node-b' }),
    instance: 'one',
    startedAtMs: Date.now(),
    log,
  })
  const running = [discovery.run(stopping.signal), reports.run(stopping.signal)]
  t.teardown(async () => {
    stopping.abort()
    await Promise.all(running)
  })
  const when = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await new Promise<void>(resolve => mesh.onChange(() => resolve()))
  }
  const seen = () => mesh.workloads.byUid('Kubernetes//Pod/shop/server')
  await when(() => seen() !== undefined)
  t.equal(seen()?.tunnelled, false)
  reports.set({ uid: 'uid-server', namespace: 'shop', name: 'server' }, PodState.ENROLLED)
  await reports.flush()
  await when(() => seen()?.tunnelled === true)
  reports.remove('uid-server')
  await when(() => seen()?.tunnelled === false)
  t.pass('and is taken back')
})
