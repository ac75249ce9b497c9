/** An agent that asks the real ca-server for what its pods talk to, when they do. */
import t, { type Test } from 'tap'
import { Discovery } from '../../../agent/mesh/discovery.ts'
import { Mesh } from '../../../agent/mesh/mesh.ts'
import { Router } from '../../../agent/mesh/router.ts'
import type { RouteDecision } from '../../../agent/worker/messages.ts'
import type { KubeObject, KubePod } from '../../../lib/kube/objects.ts'
import { TestCa } from '../../helpers/ca-server.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
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

const client = kubePod('client')
const CLIENT = localPod('client', ['10.98.1.10'], { uid: client.metadata.uid })
const CAREFUL = localPod('careful', ['10.98.1.11'], { uid: 'uid-careful' })
const on = (node: string, name: string, ip: string, more: Parameters<typeof kubePod>[1] = {}) =>
  kubePod(name, { node, ips: [ip], ...more })
const server = on('node-b', 'server', '10.98.1.20')
const second = on('node-b', 'server-2', '172.20.0.21')
const old = on('node-b', 'old', '172.20.0.22', { namespace: 'legacy' })
/** Of no interest to the client: twenty services of three pods each. */
const CROWD = Array.from({ length: 20 }, (_, at) => {
  const pods = [0, 1, 2].map(each => on('node-b', `crowd-${at}-${each}`, `172.30.${at}.${each}`))
  return [
    kubeService(`crowd-${at}`, { clusterIPs: [`10.96.0.${at}`] }),
    kubeSlice(`crowd-${at}`, pods),
    ...pods,
  ]
}).flat()
const world = (...pods: KubePod[]): KubeObject[] => [
  kubeNode('node-a', '10.99.0.1'),
  kubeNode('node-b', '10.99.0.2'),
  kubeNamespace('shop', ENROLLED),
  kubeNamespace('legacy'),
  client,
  on('node-a', 'careful', '10.98.1.11'),
  ...pods,
  kubeService('echo'),
  kubeSlice(
    'echo',
    pods.filter(pod => pod.metadata.name.startsWith('server')),
  ),
  ...CROWD,
]
const ADDRESS = 'type.googleapis.com/istio.workload.Address'

async function setUp(t: Test, unknownHoldMs: number, pods = [server, second, old]) {
  const ca = await TestCa.start(t, { world: world(...pods), env: { TUNNEL_WITHOUT_REPORT: 'true' } })
  const clock = new FakeClock()
  const mesh = new Mesh({ nodeName: 'node-a', discovery: 'on-demand', clock })
  const router = new Router({ mesh, nodeName: 'node-a', unknownHoldMs, log: quietLog().log })
  const discovery = new Discovery({
    url: new URL(`https://127.0.0.1:${ca.port}`),
    node: { ip: '10.99.0.1', podName: 'culvert-agent', podNamespace: 'culvert-system' },
    kinds: mesh.kinds,
    token: () => ca.issuer.token(),
    rootCa: async () => ca.rootPem,
    log: quietLog().log,
    backoff: { firstMs: 10, maxMs: 50 },
  })
  let stop = async () => undefined as void
  const start = async () => {
    const abort = new AbortController()
    const running = discovery.run(abort.signal)
    stop = async () => {
      abort.abort()
      await running
    }
    await when(mesh, () => mesh.canAsk)
  }
  t.teardown(() => stop())
  await start()
  await mesh.whenSynced(AbortSignal.timeout(20_000))
  router.setLocalPod(CLIENT, mesh.enrolmentOf(CLIENT)!)
  router.setLocalPod(CAREFUL, { ...mesh.enrolmentOf(CAREFUL)!, requireOutbound: true })
  const route = (ip: string, port = 8080, from = CLIENT) => router.route({ podUid: from.uid, ip, port })
  const held = () => [...mesh.workloads.values()].map(({ name }) => name).sort()
  return { ca, mesh, clock, router, discovery, route, held, start, stop: () => stop() }
}

/** Looks every few milliseconds until it is so. */
async function when(mesh: Mesh, isSo: () => boolean): Promise<void> {
  while (!isSo()) await mesh.changed('nobody', 5, '192.0.2.1')
}

const tunnelTo = (name: string) => ({
  kind: 'forward',
  endpoints: [
    {
      peer: { workload: name },
      via: { kind: 'hbone', identities: [`spiffe://cluster.local/ns/shop/sa/${name}`] },
    },
  ],
})
/** Whose tunnel, or the reason of all else. */
const inAWord = (decision: RouteDecision): string => {
  if (decision.kind !== 'forward') return decision.reason
  const [{ via, peer } = {}] = decision.endpoints
  return via?.kind === 'tcp' ? via.reason : (peer?.workload ?? '')
}
const inTheClear = (reason: string) => ({ kind: 'forward', endpoints: [{ via: { kind: 'tcp', reason } }] })

await t.test('nothing is held but the pods of the node, until they talk to others', async t => {
  const { mesh, route, held } = await setUp(t, 20_000)
  t.strictSame(held(), ['careful', 'client'])
  t.match(mesh.sizes(), { workloads: 2, services: 0, namespaces: 2, nodes: 2, trustBundles: 1 })
  const startMs = performance.now()
  t.match(await route('10.98.1.20'), tunnelTo('server'))
  t.comment(`the first time: ${(performance.now() - startMs).toFixed(1)} ms`)
  t.strictSame(held(), ['careful', 'client', 'server'])
  t.match(await route('172.20.0.22'), inTheClear('peer-not-enrolled'))
  t.match(await route('203.0.113.9'), inTheClear('peer-external'), 'nobody waits for what is not there')
  t.match(mesh.sizes(), { workloads: 4, services: 0, askedFound: 2, askedAbsent: 1, askedPending: 0 })
  const dump = mesh.dump()
  t.equal((dump['workloads'] as unknown[]).length, 4)
  t.match(dump['demand'], {
    canAsk: true,
    names: [{ name: '/10.98.1.20', state: 'found', askedBy: CLIENT.uid }],
  })
  t.doesNotThrow(() => JSON.stringify(dump))
})

await t.test('the address of a service brings all of its endpoints, and what becomes of them', async t => {
  const { ca, mesh, route, held } = await setUp(t, 20_000)
  const ips = async () => {
    const decision = await route('10.97.0.1', 80)
    return decision.kind === 'forward' ? decision.endpoints.map(({ ip }) => ip).sort() : decision
  }
  t.strictSame(await ips(), ['10.98.1.20', '172.20.0.21'])
  t.strictSame(held(), ['careful', 'client', 'server', 'server-2'])
  const third = on('node-b', 'server-3', '172.20.0.23')
  ca.setWorld(world(server, third, old))
  await when(mesh, () => held().join() === 'careful,client,server,server-3')
  t.strictSame(await ips(), ['10.98.1.20', '172.20.0.23'])
  ca.setWorld(world(old))
  await when(mesh, () => held().join() === 'careful,client')
  t.match(await route('10.97.0.1', 80), { kind: 'refuse', reason: 'no-endpoint', service: { name: 'echo' } })
})

await t.test('what was answered is followed: out of the mesh, gone, another at its address', async t => {
  const { ca, mesh, router, route, held } = await setUp(t, 1)
  // As one does who keeps an answer until it is called back.
  let kept: string | undefined
  router.onInvalidate(() => (kept = undefined))
  const becomes = async (answer: string): Promise<void> => {
    while ((kept ??= inAWord(await route('172.20.0.21'))) !== answer)
      await mesh.changed('nobody', 5, '192.0.2.1')
  }
  await becomes('server-2')
  const out = on('node-b', 'server-2', '172.20.0.21', {
    meta: { annotations: { 'culvert.dev/mesh': 'disabled' } },
  })
  ca.setWorld(world(server, out, old))
  await becomes('peer-not-enrolled')
  ca.setWorld(world(server, old))
  await becomes('peer-external')
  t.strictSame(held(), ['careful', 'client'])
  ca.setWorld(world(server, old, on('node-b', 'heir', '172.20.0.21')))
  await becomes('heir')
  ca.setWorld(world(server, old, on('node-b', 'heir', '172.20.0.99')))
  await becomes('peer-external') // one that moved away is not looked for where it was
  t.strictSame(held(), ['careful', 'client'])
})

await t.test('a pod that is just being made is waited for, as where everything is held', async t => {
  const { ca, route } = await setUp(t, 20_000)
  const waiting = route('10.98.1.77')
  await ca.line({ msg: 'discovery stream opened' })
  ca.setWorld(world(server, second, old, on('node-b', 'late', '10.98.1.77')))
  t.match(await waiting, tunnelTo('late'))
})

await t.test(
  'while the ca-server is away what is known goes on, and what is not is refused or named',
  async t => {
    const { ca, mesh, route, router, held, start, stop } = await setUp(t, 100)
    await Promise.all([route('10.98.1.20'), route('203.0.113.9'), route('172.20.0.22')])
    await stop()
    t.notOk(mesh.canAsk)
    t.match(await route('10.98.1.20'), tunnelTo('server'))
    t.match(await route('203.0.113.9'), inTheClear('peer-external'))
    const startMs = performance.now()
    const [plain, refused] = await Promise.all([route('172.20.0.21'), route('172.20.0.21', 8080, CAREFUL)])
    t.ok(performance.now() - startMs >= 95, 'held before it is called unknown')
    t.match(plain, inTheClear('peer-unknown'))
    t.match(refused, { kind: 'refuse', reason: 'strict', detail: /not known to discovery/ })
    const admitted = router.admit({
      podUid: CLIENT.uid,
      sourceIp: '172.20.0.21',
      identity: undefined,
      ip: '10.98.1.10',
      port: 80,
    })
    t.match(await admitted, { kind: 'admit', reason: 'peer-unknown' })

    const moved = on('node-b', 'heir', '10.98.1.20')
    ca.setWorld(world(second, moved))
    let calledBack = 0
    router.onInvalidate(() => calledBack++)
    await start()
    await when(mesh, () => held().join() === 'careful,client,heir,server-2' && calledBack > 0)
    t.match(await route('172.20.0.21'), tunnelTo('server-2'))
    t.match(await route('10.98.1.20'), tunnelTo('heir'))
    t.match(await route('172.20.0.22'), inTheClear('peer-external'), 'what went meanwhile is gone')
  },
)

await t.test('one who comes back says what it holds, and is told only what has changed', async t => {
  const { ca, mesh, discovery, route, held, start, stop } = await setUp(t, 1)
  await Promise.all([route('10.97.0.1', 80), route('172.20.0.22'), route('203.0.113.9')])
  const before = held()
  await stop()
  const { resources } = discovery.state().types[ADDRESS]!
  await start()
  await when(mesh, () => discovery.state().types[ADDRESS]!.responses > 0)
  ca.setWorld(world(server, second, old, on('node-a', 'neighbour', '10.98.1.30')))
  await when(mesh, () => held().includes('neighbour'))
  t.strictSame(
    held().filter(name => name !== 'neighbour'),
    before,
  )
  t.equal(discovery.state().types[ADDRESS]!.resources, resources + 1, 'nothing was told again')
})

await t.test('what nobody talks to any more is neither held nor heard of', async t => {
  const { ca, mesh, clock, route, held, discovery } = await setUp(t, 1)
  await Promise.all([route('10.97.0.1', 80), route('172.20.0.22')])
  const { demand } = mesh.addresses
  clock.advance(500_000)
  await route('172.20.0.22')
  demand!.sweep()
  clock.advance(100_000)
  demand!.sweep()
  t.strictSame(held(), ['careful', 'client', 'old'])
  t.equal(mesh.services.size, 0)
  const { resources } = discovery.state().types[ADDRESS]!
  const changed = on('node-b', 'server', '10.98.1.20', { ready: false })
  ca.setWorld(world(changed, second, old, on('node-a', 'neighbour', '10.98.1.30')))
  await when(mesh, () => held().includes('neighbour'))
  t.equal(discovery.state().types[ADDRESS]!.resources, resources + 1)
  t.match(await route('10.98.1.20'), tunnelTo('server'), 'and is asked for again when it is')
})

await t.test('a peer that comes in is known by name the first time', async t => {
  const { router } = await setUp(t, 20_000)
  const question = { podUid: CLIENT.uid, ip: '10.98.1.10', port: 80 }
  const startMs = performance.now()
  t.match(await router.admit({ ...question, sourceIp: '172.20.0.22', identity: undefined }), {
    reason: 'peer-not-enrolled',
    peer: { workload: 'old', namespace: 'legacy' },
  })
  t.comment(`the first time: ${(performance.now() - startMs).toFixed(1)} ms`)
  const identity = 'spiffe://cluster.local/ns/shop/sa/server'
  t.match(await router.admit({ ...question, sourceIp: '10.98.1.20', identity }), {
    reason: 'mtls',
    peer: { workload: 'server', node: 'node-b', identity },
  })
  t.match(await router.admit({ ...question, sourceIp: '203.0.113.1', identity: undefined }), {
    reason: 'peer-external',
  })
})

await t.test('a pod that tries every address grows nothing, and its neighbour does not notice', async t => {
  const { mesh, route, ca } = await setUp(t, 1)
  const addresses = Array.from({ length: 20_000 }, (_, at) => `192.168.${at >> 8}.${at & 255}`)
  let [refused, external] = [0, 0]
  const scan = addresses.map(async ip => {
    const decision = await route(ip)
    if (decision.kind === 'refuse') refused++
    else if (inAWord(decision) === 'peer-external') external++
  })
  const startMs = performance.now()
  const neighbours = await Promise.all([
    route('172.20.0.21', 8080, CAREFUL),
    route('172.20.0.22', 8080, CAREFUL),
  ])
  t.comment(`the neighbour's first: ${(performance.now() - startMs).toFixed(1)} ms`)
  t.match(neighbours, [tunnelTo('server-2'), { kind: 'refuse', reason: 'strict', detail: /is not enrolled/ }])
  const sizes = mesh.sizes()
  t.ok(sizes['askedPending']! <= 4096 + 2, `${sizes['askedPending']} pending`)
  await Promise.all(scan)
  const after = mesh.sizes()
  t.ok(after['askedAbsent']! <= 1024 && after['askedPending'] === 0, JSON.stringify(after))
  t.ok(refused > 10_000, `${refused} refused, for too many waited`)
  t.equal(refused + external, addresses.length, 'everyone else was told that nobody is there')
  t.notOk(ca.lines.some(({ level }) => Number(level) >= 40))
})
