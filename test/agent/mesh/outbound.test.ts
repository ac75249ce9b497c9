import t from 'tap'
import { Router } from '../../../agent/mesh/router.ts'
import {
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  NetworkMode,
  Service_Visibility,
  WorkloadStatus,
} from '../../../lib/proto/gen/istio/workload_pb.js'
import { MeshWorld, serviceKey } from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { ECHO, endpoints, places, plaintextReason, setUp, shop } from '../../helpers/routes.ts'

await t.test('the address of an enrolled pod is reached through a tunnel, as that pod', async t => {
  const route = setUp(shop())
  t.strictSame(endpoints(await route('10.2.0.2', 8080)), [
    {
      ip: '10.2.0.2',
      port: 8080,
      weight: 1,
      peer: {
        workload: 'server',
        namespace: 'shop',
        node: 'node-b',
        cluster: 'Kubernetes',
        identity: 'spiffe://cluster.local/ns/shop/sa/server',
      },
      via: { kind: 'hbone', port: 15008, identities: ['spiffe://cluster.local/ns/shop/sa/server'] },
    },
  ])
})

await t.test(
  'a service address goes to its endpoints, on the mapped port and in the family that was dialled',
  async t => {
    const route = setUp(shop())
    const decision = await route('10.96.0.10', 80)
    t.strictSame(places(decision), ['10.2.0.2|8080'])
    t.match(decision, {
      service: { namespace: 'shop', name: 'echo', hostname: 'echo.shop.svc.cluster.local' },
    })
    t.strictSame(places(await route('fd96::10', 80)), ['fd02::2|8080'])
  },
)

await t.test('endpoints of one service state are one shared list', async t => {
  const world = shop()
  const route = setUp(world)
  const first = endpoints(await route('10.96.0.10', 80))
  t.equal(endpoints(await route('10.96.0.10', 80)), first)
  world.pod({ name: 'server-2', ips: ['10.1.0.7'], services: { [ECHO]: { 80: 8080 } } })
  t.strictSame(places(await route('10.96.0.10', 80)), ['10.2.0.2|8080', '10.1.0.7|8080'])
})

await t.test('an endpoint may present the identities that its service names, besides its own', async t => {
  const other = 'spiffe://cluster.local/ns/shop/sa/gateway'
  const world = shop().service({
    name: 'echo',
    vips: ['10.96.0.10'],
    ports: { 80: 8080 },
    more: { subjectAltNames: [other] },
  })
  const [endpoint] = endpoints(await setUp(world)('10.96.0.10', 80))
  t.match(endpoint, { via: { identities: ['spiffe://cluster.local/ns/shop/sa/server', other] } })
})

await t.test('an endpoint says its own target port, and its capacity is its weight', async t => {
  const world = shop()
    .pod({ name: 'server', ips: ['10.2.0.2'], services: { [ECHO]: { 80: 9090 } }, more: { capacity: 5 } })
    .pod({ name: 'drained', ips: ['10.2.0.3'], services: { [ECHO]: { 80: 9090 } }, more: { capacity: 0 } })
  t.match(endpoints(await setUp(world)('10.96.0.10', 80)), [{ ip: '10.2.0.2', port: 9090, weight: 5 }])
})

await t.test('unready endpoints are left out, unless the service wants them', async t => {
  const unready = { more: { status: WorkloadStatus.UNHEALTHY } }
  const world = shop().pod({ name: 'server', ips: ['10.2.0.2'], services: { [ECHO]: {} }, ...unready })
  const route = setUp(world)
  t.match(await route('10.96.0.10', 80), {
    kind: 'refuse',
    reason: 'no-endpoint',
    detail: 'service shop/echo has no endpoint: 1 not ready',
    service: { name: 'echo' },
  })
  world.service({
    name: 'echo',
    vips: ['10.96.0.10'],
    ports: { 80: 8080 },
    more: { loadBalancing: { healthPolicy: LoadBalancing_HealthPolicy.ALLOW_ALL } },
  })
  t.strictSame(places(await route('10.96.0.10', 80)), ['10.2.0.2|8080'])
})

await t.test('a port that the service does not have is refused by name', async t => {
  t.match(await setUp(shop())('10.96.0.10', 81), {
    kind: 'refuse',
    reason: 'no-endpoint',
    detail: 'service shop/echo has no port 81',
  })
})

await t.test('a service without endpoints is refused, and reached as soon as one is there', async t => {
  const world = shop().service({ name: 'empty', vips: ['10.96.0.11'], ports: { 80: 0 } })
  const route = setUp(world)
  t.match(await route('10.96.0.11', 80), {
    reason: 'no-endpoint',
    detail: 'service shop/empty has no endpoint',
  })
  world.pod({ name: 'late', ips: ['10.2.0.5'], services: { [serviceKey('shop', 'empty')]: { 80: 8081 } } })
  t.strictSame(places(await route('10.96.0.11', 80)), ['10.2.0.5|8081'])
})

await t.test('endpoints that came before their service are there when it comes', async t => {
  const key = serviceKey('shop', 'later')
  const world = shop().pod({ name: 'early', ips: ['10.2.0.5'], services: { [key]: { 80: 8081 } } })
  world.service({ name: 'later', vips: ['10.96.0.12'], ports: { 80: 8081 } })
  t.strictSame(places(await setUp(world)('10.96.0.12', 80)), ['10.2.0.5|8081'])
})

await t.test(
  'endpoints that are not enrolled are mixed in, each under its reason; `require` leaves them out',
  async t => {
    const services = { [ECHO]: { 80: 8080 } }
    const world = shop()
      .pod({ name: 'plain', ips: ['10.2.0.3'], hbone: false, services })
      .pod({
        name: 'hosted',
        ips: ['192.168.0.2'],
        hbone: false,
        services,
        more: { networkMode: NetworkMode.HOST_NETWORK },
      })
    const reasons = endpoints(await setUp(world)('10.96.0.10', 80)).map(({ via }) =>
      via.kind === 'tcp' ? via.reason : via.kind,
    )
    t.strictSame(reasons, ['hbone', 'peer-not-enrolled', 'peer-host-network'])
    t.strictSame(places(await setUp(world, { requireOutbound: true })('10.96.0.10', 80)), ['10.2.0.2|8080'])
    world.removePod('server')
    t.match(await setUp(world, { requireOutbound: true })('10.96.0.10', 80), {
      kind: 'refuse',
      reason: 'strict',
    })
  },
)

await t.test('everything in the clear has a reason', async t => {
  const route = setUp(shop())
  t.equal(plaintextReason(await route('10.2.0.9', 80)), 'peer-not-enrolled')
  t.equal(plaintextReason(await route('192.168.0.2', 80)), 'peer-host-network')
  t.equal(plaintextReason(await route('10.2.0.77', 80)), 'peer-unknown')
  t.equal(plaintextReason(await route('93.184.216.34', 443)), 'peer-external')
  t.equal(plaintextReason(await route('2606:2800::1', 443)), 'peer-external')
})

await t.test(
  '`require` lets nothing of the cluster through in the clear, and the rest of the world',
  async t => {
    const route = setUp(shop(), { requireOutbound: true })
    for (const ip of ['10.2.0.9', '192.168.0.2', '10.2.0.77'])
      t.match(await route(ip, 80), { kind: 'refuse', reason: 'strict' }, ip)
    t.equal(plaintextReason(await route('93.184.216.34', 443)), 'peer-external')
  },
)

await t.test('what was excluded goes as it is, under `require` too', async t => {
  const route = setUp(shop(), {
    requireOutbound: true,
    excludeOutboundPorts: [5432],
    excludeOutboundCidrs: ['10.2.0.2/32', '10.99.0.0/16'],
  })
  t.equal(plaintextReason(await route('10.2.0.9', 5432)), 'excluded-port')
  t.equal(plaintextReason(await route('10.2.0.2', 8080)), 'excluded-cidr')
  t.equal(plaintextReason(await route('10.99.3.4', 80)), 'excluded-cidr')
  const vip = await route('10.96.0.10', 5432)
  t.strictSame(places(vip), ['10.96.0.10|5432'], 'a service address stays what it is')
  t.match(vip, { service: { name: 'echo' } })
})

await t.test("the agent's own ports and loopback are nobody's to dial", async t => {
  const route = setUp(shop())
  for (const port of [15001, 15006, 15008])
    for (const ip of ['10.2.0.2', '10.2.0.77', '10.1.0.2'])
      t.match(
        await route(ip, port),
        { kind: 'refuse', reason: 'policy', detail: /^self call/ },
        `${ip} ${port}`,
      )
  t.match(await route('127.0.0.1', 80), { kind: 'refuse', reason: 'policy' })
  t.equal(plaintextReason(await route('93.184.216.34', 15008)), 'peer-external')
})

await t.test("a pod's own address is itself, whatever is required", async t => {
  const route = setUp(shop(), { requireOutbound: true })
  t.strictSame(places(await route('10.1.0.2', 80)), ['10.1.0.2|80'])
})

await t.test('a pod that is not registered goes nowhere', async t => {
  const router = new Router({ mesh: shop().mesh, nodeName: 'node-a', log: quietLog().log })
  t.match(await router.route({ podUid: 'nobody', ip: '10.2.0.2', port: 80 }), {
    kind: 'refuse',
    reason: 'unreachable',
    detail: /nobody/,
  })
})

await t.test('an unknown address of the cluster is held until discovery tells of it', async t => {
  const world = shop()
  const route = setUp(world, {}, 30_000)
  const held = route('10.2.0.50', 8080)
  world.pod({ name: 'new', ips: ['10.2.0.50'] })
  t.match(endpoints(await held), [{ via: { kind: 'hbone' }, peer: { workload: 'new' } }])
})

await t.test('before the first full picture everything unknown is held, and not called external', async t => {
  const unsynced = new MeshWorld()
  t.equal(plaintextReason(await setUp(unsynced)('93.184.216.34', 443)), 'peer-unknown')
  t.match(await setUp(unsynced, { requireOutbound: true })('93.184.216.34', 443), { reason: 'strict' })

  const world = new MeshWorld()
  const held = setUp(world, {}, 30_000)('93.184.216.34', 443)
  world.synced()
  t.equal(plaintextReason(await held), 'peer-external')
})

await t.test('without any node known, what is unknown is external', async t => {
  const world = new MeshWorld({ culvertTypes: false }).synced()
  t.equal(plaintextReason(await setUp(world)('10.2.0.77', 80)), 'peer-external')
})

await t.test('ranges given by setting count as the cluster', async t => {
  const world = new MeshWorld({ culvertTypes: false, clusterCidrs: ['10.96.0.0/12'] }).synced()
  t.equal(plaintextReason(await setUp(world)('10.97.1.1', 80)), 'peer-unknown')
})

await t.test('a service that is private to another namespace is not seen', async t => {
  const world = shop().service({
    name: 'private',
    namespace: 'vault',
    vips: ['10.96.0.20'],
    ports: { 80: 80 },
    more: { visibility: Service_Visibility.NAMESPACE },
  })
  t.equal(plaintextReason(await setUp(world)('10.96.0.20', 80)), 'peer-unknown')
  t.match(await setUp(world, { requireOutbound: true })('10.96.0.20', 80), { reason: 'strict' })
})

await t.test('among services that share an address: private to us, ours, canonical, first', async t => {
  const vips = ['10.96.0.30']
  const ports = { 80: 80 }
  const world = shop()
  const route = setUp(world)
  const chosen = async () => (await route('10.96.0.30', 80)).service?.hostname
  world.service({ name: 'a', namespace: 'z-other', vips, ports })
  world.service({ name: 'a', namespace: 'y-other', vips, ports })
  t.equal(await chosen(), 'a.y-other.svc.cluster.local')
  world.service({ name: 'c', namespace: 'z-canonical', vips, ports, more: { canonical: true } })
  t.equal(await chosen(), 'c.z-canonical.svc.cluster.local')
  world.service({ name: 'ours', vips, ports })
  t.equal(await chosen(), 'ours.shop.svc.cluster.local')
  world.service({ name: 'zz', vips, ports, more: { visibility: Service_Visibility.NAMESPACE } })
  t.equal(await chosen(), 'zz.shop.svc.cluster.local')
})

await t.test(
  'a service may have a range of addresses; the longest wins, and a single one above all',
  async t => {
    const world = shop()
      .service({ name: 'wide', vips: ['240.0.0.0/8'], ports: { 80: 80 } })
      .service({ name: 'narrow', vips: ['240.240.0.0/16'], ports: { 80: 80 } })
      .service({ name: 'one', vips: ['240.240.0.1'], ports: { 80: 80 } })
    const route = setUp(world)
    t.equal((await route('240.1.1.1', 80)).service?.name, 'wide')
    t.equal((await route('240.240.1.1', 80)).service?.name, 'narrow')
    t.equal((await route('240.240.0.1', 80)).service?.name, 'one')
  },
)

await t.test('a passthrough service leaves the address as it is', async t => {
  const more = { loadBalancing: { mode: LoadBalancing_Mode.PASSTHROUGH } }
  const world = shop().service({
    name: 'through',
    vips: ['10.2.0.2', '198.51.100.7'],
    ports: { 80: 80 },
    more,
  })
  const route = setUp(world)
  t.match(endpoints(await route('10.2.0.2', 80)), [{ ip: '10.2.0.2', port: 80, via: { kind: 'hbone' } }])
  t.equal(plaintextReason(await route('198.51.100.7', 80)), 'peer-external')
})

await t.test('localities: failover takes the nearest there is, strict only the nearest', async t => {
  const services = { [ECHO]: { 80: 8080 } }
  const at = (zone: string, node: string) => ({ locality: { region: 'r', zone }, node })
  const world = shop()
    .pod({ name: 'server', ips: ['10.2.0.2'], services, more: at('far', 'node-b') })
    .pod({ name: 'same-zone', ips: ['10.3.0.2'], services, more: at('near', 'node-c') })
    .pod({ name: 'same-node', ips: ['10.1.0.5'], services, more: at('near', 'node-a') })
    .pod({ name: 'client', ips: ['10.1.0.2'], more: at('near', 'node-a') })
  const route = setUp(world)
  const balanced = (mode: LoadBalancing_Mode) =>
    world.service({
      name: 'echo',
      vips: ['10.96.0.10'],
      ports: { 80: 8080 },
      more: {
        loadBalancing: { mode, routingPreference: [LoadBalancing_Scope.ZONE, LoadBalancing_Scope.NODE] },
      },
    })
  balanced(LoadBalancing_Mode.FAILOVER)
  t.strictSame(places(await route('10.96.0.10', 80)), ['10.1.0.5|8080'])
  world.removePod('same-node')
  t.strictSame(places(await route('10.96.0.10', 80)), ['10.3.0.2|8080'])
  balanced(LoadBalancing_Mode.STRICT)
  t.match(await route('10.96.0.10', 80), { reason: 'no-endpoint', detail: /2 out of reach/ })
  balanced(LoadBalancing_Mode.UNSPECIFIED_MODE)
  t.strictSame(places(await route('10.96.0.10', 80)), ['10.2.0.2|8080', '10.3.0.2|8080'])
})

await t.test('a waypoint and another network are refused by name, not gone around', async t => {
  const waypoint = {
    destination: { case: 'hostname' as const, value: { namespace: 'infra', hostname: 'wp.infra' } },
  }
  const world = shop()
    .pod({ name: 'behind', ips: ['10.2.0.30'], more: { waypoint } })
    .pod({ name: 'abroad', ips: ['10.8.0.1'], services: { [ECHO]: {} }, more: { network: 'other' } })
    .removePod('server')
  const route = setUp(world)
  t.match(await route('10.2.0.30', 80), { reason: 'unreachable', detail: /waypoint infra\/wp\.infra/ })
  t.match(await route('10.96.0.10', 80), { reason: 'unreachable', detail: /other networks/ })
  world.service({ name: 'echo', vips: ['10.96.0.10'], ports: { 80: 8080 }, more: { waypoint } })
  t.match(await route('10.96.0.10', 80), { reason: 'unreachable', detail: /waypoint infra\/wp\.infra/ })

  world.pod({ name: 'client', ips: ['10.1.0.2'], services: { 'infra/wp.infra': {} } })
  t.match(
    endpoints(await route('10.2.0.30', 80)),
    [{ via: { kind: 'hbone' } }],
    'the waypoint itself goes there',
  )
})

await t.test(
  'an address that was given to another pod belongs to the later one, while that lives',
  async t => {
    const world = shop()
      .pod({ name: 'first', ips: ['10.2.0.40'] })
      .pod({ name: 'second', ips: ['10.2.0.40'] })
      .pod({ name: 'first', ips: ['10.2.0.40'], more: { status: WorkloadStatus.UNHEALTHY } })
    const route = setUp(world)
    const owner = async () => endpoints(await route('10.2.0.40', 80))[0]!.peer.workload
    t.equal(await owner(), 'second', 'news of the first changes nothing')
    world.pod({ name: 'second', ips: ['10.2.0.40'], info: { terminating: true } })
    t.equal(await owner(), 'first', 'one that is being deleted loses')
    world.removePod('second')
    t.equal(await owner(), 'first')
    world.removePod('first')
    t.equal(plaintextReason(await route('10.2.0.40', 80)), 'peer-unknown')
  },
)

await t.test('a pod may lose its address to a successor of the same name', async t => {
  const world = shop()
    .pod({ name: 'db-0', ips: ['10.2.0.41'], info: { podUid: 'a' } })
    .pod({ name: 'other', ips: ['10.2.0.41'], info: { podUid: 'b' } })
    .pod({ name: 'db-0', ips: ['10.2.0.41'], info: { podUid: 'c' } })
  t.equal(endpoints(await setUp(world)('10.2.0.41', 80))[0]!.peer.workload, 'db-0')
})

await t.test('of a service of thousands a decision carries some, the same ones as it changes', async t => {
  const world = shop()
  const services = { [ECHO]: { 80: 8080 } }
  for (let at = 0; at < 3000; at++)
    world.pod({ name: `pod-${at}`, ips: [`10.3.${at >> 8}.${at & 255}`], services, hbone: at % 4 > 0 })
  const route = setUp(world)
  const before = endpoints(await route('10.96.0.10', 80))
  t.equal(before.length, 1000)
  t.ok(
    before.every(({ via }) => via.kind === 'hbone'),
    'enrolled ones come first',
  )
  const gone = before[0]!.peer.workload!
  world.removePod(gone)
  const kept = new Set((await route('10.96.0.10', 80).then(endpoints)).map(({ ip }) => ip))
  t.equal(kept.size, 1000)
  t.equal(before.filter(({ ip }) => kept.has(ip)).length, 999)
})
