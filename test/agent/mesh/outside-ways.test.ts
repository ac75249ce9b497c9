/** Ways to a service or a pod that are meant for those outside, and endpoints that are no pods. */
import t from 'tap'
import { bytesFromIp } from '../../../lib/address.ts'
import { NetworkMode } from '../../../lib/proto/gen/istio/workload_pb.js'
import type { MeshWorld } from '../../helpers/mesh-world.ts'
import { serviceKey } from '../../helpers/mesh-world.ts'
import { endpoints, places, plaintextReason, setUp, shop } from '../../helpers/routes.ts'

const NODE_B = '192.168.0.2'
const VIPS = ['10.96.0.10']

function withOutside(world: MeshWorld): MeshWorld {
  const info = {
    externalAddresses: ['203.0.113.7', NODE_B].map(ip => bytesFromIp(ip)),
    nodePorts: { 30080: 80 },
  }
  return world.service({ name: 'echo', vips: VIPS, ports: { 80: 8080 }, info })
}

/** An endpoint that is an address in an object, as discovery names it. */
function named(world: MeshWorld, slice: string, ip: string, port = 443, more = {}): MeshWorld {
  const [namespace = '', name = ''] = slice.split('/')
  const uid = `Kubernetes/discovery.k8s.io/EndpointSlice/${slice}/${ip}`
  return world.pod({
    namespace,
    name,
    ips: [ip],
    hbone: false,
    services: { [serviceKey(namespace, name)]: { [port]: 6443 } },
    more: { uid, serviceAccount: '', ...more },
  })
}

await t.test('external addresses and node ports lead to the endpoints, in the tunnel', async t => {
  for (const enrolment of [{}, { requireOutbound: true }]) {
    const route = setUp(withOutside(shop()), enrolment)
    for (const [ip, port] of [
      ['203.0.113.7', 80],
      [NODE_B, 80],
      ['192.168.0.1', 30080],
      [NODE_B, 30080],
    ] as const) {
      const decision = await route(ip, port)
      t.match(decision, { service: { name: 'echo' } }, `${ip}:${port}`)
      t.match(endpoints(decision), [{ ip: '10.2.0.2', port: 8080, via: { kind: 'hbone' } }])
    }
  }
})

await t.test('for other ports the address is what it was', async t => {
  const route = setUp(withOutside(shop()))
  t.equal(plaintextReason(await route('203.0.113.7', 22)), 'peer-external')
  t.equal(plaintextReason(await route(NODE_B, 22)), 'peer-host-network')
  t.equal(plaintextReason(await route('203.0.113.7', 30080)), 'peer-external')
})

await t.test('several services may share an external address, by their ports', async t => {
  const externalAddresses = [bytesFromIp('203.0.113.7')]
  const world = withOutside(shop()).service({
    name: 'other',
    ports: { 443: 8443 },
    info: { externalAddresses },
  })
  const route = setUp(world)
  t.match(await route('203.0.113.7', 80), { service: { name: 'echo' } })
  t.match(await route('203.0.113.7', 443), { service: { name: 'other' }, reason: 'no-endpoint' })
})

await t.test("nobody takes a pod's address for a service by naming it", async t => {
  const externalAddresses = [bytesFromIp('10.2.0.9')]
  const world = shop().service({ name: 'thief', ports: { 80: 80 }, info: { externalAddresses } })
  t.equal(plaintextReason(await setUp(world)('10.2.0.9', 80)), 'peer-not-enrolled')
})

await t.test('node ports come and go with their service', async t => {
  const world = withOutside(shop())
  const route = setUp(world)
  t.strictSame(places(await route(NODE_B, 30080)), ['10.2.0.2|8080'])
  world.service({ name: 'echo', vips: VIPS, ports: { 80: 8080 }, info: { nodePorts: { 30081: 80 } } })
  t.equal(plaintextReason(await route(NODE_B, 30080)), 'peer-host-network')
  t.equal(plaintextReason(await route('203.0.113.7', 80)), 'peer-external')
  t.strictSame(places(await route(NODE_B, 30081)), ['10.2.0.2|8080'])
  world.remove('istio.workload.Address', serviceKey('shop', 'echo'))
  t.equal(plaintextReason(await route(NODE_B, 30081)), 'peer-host-network')
})

await t.test('a host port leads to the pod, on its own node and at its own address', async t => {
  const hostPort = (port: number, ip: Uint8Array = Uint8Array.of()) => ({
    hostPort: port,
    containerPort: 8080,
    hostIp: ip,
  })
  const world = shop().pod({
    name: 'server',
    ips: ['10.2.0.2'],
    info: { hostPorts: [hostPort(31080), hostPort(31081, bytesFromIp('10.9.9.9'))] },
  })
  const route = setUp(world)
  t.match(endpoints(await route(NODE_B, 31080)), [{ ip: '10.2.0.2', port: 8080, via: { kind: 'hbone' } }])
  t.equal(plaintextReason(await route('192.168.0.1', 31080)), 'peer-host-network', 'another node')
  t.equal(plaintextReason(await route(NODE_B, 31081)), 'peer-host-network', 'another address')
  world.removePod('server')
  t.equal(plaintextReason(await route(NODE_B, 31080)), 'peer-host-network')
})

await t.test('the API server is reached as it is, under require too', async t => {
  const kubernetes = (world: MeshWorld, ip: string, more = {}) =>
    named(world, 'default/kubernetes', ip, 443, more).service({
      namespace: 'default',
      name: 'kubernetes',
      vips: ['10.96.0.1'],
      ports: { 443: 6443 },
    })
  for (const [ip, more, reason] of [
    ['192.168.0.1', { networkMode: NetworkMode.HOST_NETWORK }, 'peer-host-network'],
    ['172.16.0.1', {}, 'peer-external'],
  ] as const)
    for (const requireOutbound of [false, true]) {
      const decision = await setUp(kubernetes(shop(), ip, more), { requireOutbound })('10.96.0.1', 443)
      t.strictSame(places(decision), [`${ip}|6443`])
      t.equal(plaintextReason(decision), reason)
    }
})

await t.test('an address outside of the cluster stays outside, whoever names it', async t => {
  const world = named(shop(), 'shop/db', '172.16.0.9').service({
    name: 'db',
    vips: ['10.96.0.20'],
    ports: { 443: 6443 },
  })
  for (const enrolment of [{}, { requireOutbound: true }]) {
    const route = setUp(world, enrolment)
    t.equal(plaintextReason(await route('10.96.0.20', 443)), 'peer-external')
    t.equal(plaintextReason(await route('172.16.0.9', 6443)), 'peer-external')
  }
  world.node('node-c', ['192.168.0.3'], ['172.16.0.0/24'])
  const route = setUp(world, { requireOutbound: true })
  t.match(await route('10.96.0.20', 443), { kind: 'refuse', reason: 'strict' }, 'now it is of the cluster')
  t.match(await route('172.16.0.9', 6443), { kind: 'refuse', reason: 'strict' })
})

await t.test("a pod's address is the pod's, although a slice names it later", async t => {
  const world = named(shop(), 'evil/shadow', '10.2.0.2')
  t.match(endpoints(await setUp(world)('10.2.0.2', 8080)), [
    { peer: { workload: 'server' }, via: { kind: 'hbone' } },
  ])
  world.pod({ name: 'server', ips: ['10.2.0.2'], info: { terminating: true } })
  t.match(endpoints(await setUp(world)('10.2.0.2', 8080)), [{ via: { kind: 'hbone' } }])
})

await t.test("a refusal says that the pod is another mesh's", async t => {
  const problems = ["pod is in Istio's ambient mesh: left alone"]
  const world = shop().pod({
    name: 'foreign',
    ips: ['10.2.0.30'],
    hbone: false,
    info: { enrolment: { problems } },
  })
  t.equal(plaintextReason(await setUp(world)('10.2.0.30', 80)), 'peer-not-enrolled')
  t.match(await setUp(world, { requireOutbound: true })('10.2.0.30', 80), {
    reason: 'strict',
    detail:
      "pod shop/foreign is not enrolled (pod is in Istio's ambient mesh: left alone), and mTLS is required",
  })
})
