/** The mesh fed by the real ca-server: what is written in Kubernetes objects comes out as decisions. */
import t, { type Test } from 'tap'
import { Discovery } from '../../../agent/mesh/discovery.ts'
import { Mesh } from '../../../agent/mesh/mesh.ts'
import { Router } from '../../../agent/mesh/router.ts'
import type { KubeObject } from '../../../lib/kube/objects.ts'
import { TestCa } from '../../helpers/ca-server.ts'
import {
  ENROLLED,
  kubeNamespace,
  kubeNode,
  kubePod,
  kubeService,
  kubeSlice,
} from '../../helpers/kube-world.ts'
import { localPod } from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const server = kubePod('server', { node: 'node-b', ips: ['10.98.2.10', 'fd98:2::10'], probePorts: [8080] })
const client = kubePod('client')
const CLIENT = localPod('client', client.status.podIPs as string[], { uid: client.metadata.uid })
const WORLD: KubeObject[] = [
  kubeNode('node-a', '10.99.0.1'),
  kubeNode('node-b', '10.99.0.2'),
  kubeNamespace('shop', ENROLLED),
  kubeNamespace('legacy'),
  client,
  server,
  kubePod('old', { namespace: 'legacy', ips: ['10.98.1.11'] }),
  kubeService('echo', { clusterIPs: ['10.97.0.1', 'fd97::1'] }),
  kubeSlice('echo', [server]),
]

async function setUp(t: Test) {
  const ca = await TestCa.start(t, { world: WORLD, env: { TUNNEL_WITHOUT_REPORT: 'true' } })
  const mesh = new Mesh({ nodeName: 'node-a' })
  const router = new Router({ mesh, nodeName: 'node-a', unknownHoldMs: 20_000, log: quietLog().log })
  const discovery = new Discovery({
    url: new URL(`https://127.0.0.1:${ca.port}`),
    node: { ip: '10.99.0.1', podName: 'culvert-agent', podNamespace: 'culvert-system' },
    kinds: mesh.kinds,
    token: () => ca.issuer.token(),
    rootCa: async () => ca.rootPem,
    log: quietLog().log,
  })
  const start = () => {
    const abort = new AbortController()
    const running = discovery.run(abort.signal)
    const stop = async () => {
      abort.abort()
      await running
    }
    t.teardown(stop)
    return { stop }
  }
  const first = start()
  await mesh.whenSynced(AbortSignal.timeout(60_000))
  const enrolment = mesh.enrolmentOf(CLIENT)!
  router.setLocalPod(CLIENT, enrolment)
  const route = (ip: string, port: number) => router.route({ podUid: CLIENT.uid, ip, port })
  return { ca, mesh, router, route, enrolment, start, ...first }
}

await t.test('objects become routes, enrolments, roots and probe ports', async t => {
  const { mesh, router, route, enrolment } = await setUp(t)
  t.match(enrolment, { mesh: true, strictInbound: false })
  t.match(await route('10.97.0.1', 80), {
    kind: 'forward',
    service: { name: 'echo' },
    endpoints: [
      {
        ip: '10.98.2.10',
        port: 8080,
        via: { kind: 'hbone', identities: ['spiffe://cluster.local/ns/shop/sa/server'] },
      },
    ],
  })
  t.match(await route('fd97::1', 80), { endpoints: [{ ip: 'fd98:2::10' }] })
  t.match(await route('10.98.1.11', 80), { endpoints: [{ via: { reason: 'peer-not-enrolled' } }] })
  t.match(await route('10.99.0.2', 80), { endpoints: [{ via: { reason: 'peer-host-network' } }] })
  t.match(mesh.roots('cluster.local'), [/BEGIN CERTIFICATE/])
  t.strictSame(mesh.nodeAddresses('node-b'), ['10.99.0.2'])
  const local = localPod('server', server.status.podIPs as string[], { uid: server.metadata.uid })
  router.setLocalPod(local, { ...enrolment, strictInbound: true })
  const probe = {
    podUid: local.uid,
    identity: undefined,
    ip: '10.98.2.10',
    port: 8080,
    sourceIp: '10.99.0.1',
  }
  t.match(await router.admit(probe), { kind: 'admit', reason: 'kubelet-probe' })
})

await t.test(
  'a connection to a pod that is just being made waits for it, not for the time to pass',
  async t => {
    const { ca, route } = await setUp(t)
    const held = route('10.98.1.12', 80)
    ca.setWorld([...WORLD, kubePod('late', { ips: ['10.98.1.12'] })])
    t.match(await held, {
      kind: 'forward',
      endpoints: [{ peer: { workload: 'late' }, via: { kind: 'hbone' } }],
    })
  },
)

await t.test('what went while the stream was down is gone when it is up again', async t => {
  const { ca, mesh, stop, start } = await setUp(t)
  const changed = new Promise<void>(resolve =>
    mesh.onChange(({ services }) => services.size > 0 && mesh.workloads.size === 2 && resolve()),
  )
  await stop()
  ca.setWorld(WORLD.filter(object => object !== server && object.kind !== 'EndpointSlice'))
  t.equal(mesh.workloads.size, 3, 'nothing is forgotten for want of a server')
  start()
  await changed
  t.strictSame([...mesh.workloads.values()].map(workload => workload.name).sort(), ['client', 'old'])
})
