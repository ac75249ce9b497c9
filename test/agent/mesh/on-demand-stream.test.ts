/** What an agent that asks says on its stream, and what it makes of servers that answer late, in part or not at all. */
import t, { type Test } from 'tap'
import { Discovery, type DiscoveryOptions } from '../../../agent/mesh/discovery.ts'
import { Mesh, type MeshOptions } from '../../../agent/mesh/mesh.ts'
import { Router } from '../../../agent/mesh/router.ts'
import { NOT_ENROLLED } from '../../../lib/enrolment.ts'
import {
  nodeBytes,
  startDiscoveryServer,
  type DiscoveryServer,
  type DiscoveryStream,
} from '../../helpers/discovery-server.ts'
import {
  localPod,
  serviceBytes,
  serviceInit,
  serviceKey,
  uidOf,
  workloadBytes,
  workloadInit,
  type PodShape,
} from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const ADDRESS = 'istio.workload.Address'
const OTHERS = ['istio.security.Authorization', 'culvert.v1.Namespace', 'culvert.v1.TrustBundle']
const CLIENT = localPod('client', ['10.1.0.2'])
const ECHO = serviceKey('shop', 'echo')

const pod = (shape: PodShape) =>
  [uidOf(shape.namespace ?? 'shop', shape.name), workloadBytes(workloadInit(shape))] as const
const service = (...vips: string[]) =>
  [ECHO, serviceBytes(serviceInit({ name: 'echo', vips, ports: { 80: 80 } }))] as const
const own = pod({ name: 'client', ips: CLIENT.ips as string[], more: { node: 'node-a' } })

interface Options extends Partial<DiscoveryOptions> {
  readonly unknownHoldMs?: number
  readonly mesh?: Partial<MeshOptions>
}

async function setUp(t: Test, { unknownHoldMs = 10, mesh: meshOptions = {}, ...options }: Options = {}) {
  const server = await startDiscoveryServer(t)
  const mesh = new Mesh({ nodeName: 'node-a', discovery: 'on-demand', ...meshOptions })
  const router = new Router({ mesh, nodeName: 'node-a', unknownHoldMs, log: quietLog().log })
  const discovery = new Discovery({
    url: server.url,
    node: { ip: '192.168.0.1', podName: 'agent-1', podNamespace: 'culvert-system' },
    kinds: mesh.kinds,
    token: async () => 'token',
    rootCa: async () => server.rootCa,
    log: quietLog().log,
    backoff: { firstMs: 5, maxMs: 20 },
    settleMs: 20,
    quietMs: 20,
    ...options,
  })
  const abort = new AbortController()
  const running = discovery.run(abort.signal)
  t.teardown(async () => {
    abort.abort()
    await running
  })
  router.setLocalPod(CLIENT, { ...NOT_ENROLLED, mesh: true })
  const route = (ip: string, port = 80) => router.route({ podUid: CLIENT.uid, ip, port })
  const held = () => [...mesh.workloads.values()].map(({ name }) => name).sort()
  return { server, mesh, router, route, held }
}

/** The next stream with the first picture told; gives what was asked for of addresses. */
async function picture(server: DiscoveryServer, culvertTypes = true) {
  const stream = await server.nextStream()
  const first = (await stream.nextRequests(culvertTypes ? 5 : 2))[ADDRESS]!
  stream.send(ADDRESS, Object.fromEntries([own]))
  for (const type of culvertTypes ? OTHERS : OTHERS.slice(0, 1)) stream.send(type, {})
  if (culvertTypes)
    stream.send('culvert.v1.Node', {
      'node-a': nodeBytes({
        name: 'node-a',
        addresses: [Uint8Array.of(192, 168, 0, 1)],
        podCidrs: ['10.1.0.0/16'],
      }),
    })
  await stream.nextRequests(culvertTypes ? 5 : 2)
  return { stream, first }
}

/** The next request that is no acknowledgement. */
async function question(stream: DiscoveryStream) {
  for (;;) {
    const request = await stream.nextRequest()
    if (request.responseNonce === '') return request
  }
}

/** A decision that is not made for as long as nothing is sent: 20 times what unknown addresses are held. */
async function isWaiting(decision: Promise<unknown>): Promise<boolean> {
  const over = new Promise(resolve => setTimeout(resolve, 200, 'waiting'))
  return (await Promise.race([decision, over])) === 'waiting'
}

await t.test(
  'it asks for nothing at first, then for what is talked to, and gives up what is not',
  async t => {
    const { server, mesh, route } = await setUp(t)
    const { stream, first } = await picture(server)
    t.match(first, {
      resourceNamesSubscribe: ['*'],
      resourceNamesUnsubscribe: ['*'],
      initialResourceVersions: {},
    })
    const decisions = [route('10.1.0.7'), route('10.1.0.8'), route('10.1.0.7', 81), route('192.168.0.1')]
    t.match(await question(stream), {
      typeUrl: `type.googleapis.com/${ADDRESS}`,
      resourceNamesSubscribe: ['/10.1.0.7', '/10.1.0.8'],
      resourceNamesUnsubscribe: [],
    })
    const [uid, bytes] = pod({ name: 'a', ips: ['10.1.0.7'] })
    stream.send(ADDRESS, { [uid]: bytes, '/10.1.0.7': bytes }, ['/10.1.0.8'])
    t.match(await Promise.all(decisions), [
      { endpoints: [{ via: { kind: 'hbone' } }] },
      { endpoints: [{ via: { reason: 'peer-unknown' } }] },
      { endpoints: [{ via: { kind: 'hbone' } }] },
      { endpoints: [{ via: { reason: 'peer-host-network' } }] },
    ])
    mesh.addresses.demand!.ask('/10.1.0.9', 'someone')
    t.match(await question(stream), { resourceNamesSubscribe: ['/10.1.0.9'] })
  },
)

await t.test('while the server is there nothing goes out in the clear before it has answered', async t => {
  const { server, route, held } = await setUp(t)
  const { stream } = await picture(server)
  for (const ip of ['10.1.0.7', '203.0.113.7']) {
    const decision = route(ip)
    await question(stream)
    t.ok(await isWaiting(decision), `${ip} is waited for longer than what is unknown`)
    const [uid, bytes] = pod({ name: `at-${ip}`, ips: [ip] })
    stream.send(ADDRESS, { [uid]: bytes })
    t.match(await decision, { endpoints: [{ via: { kind: 'hbone' } }] }, 'a pod proves itself')
  }
  // What is no tunnel is not said on half of an answer.
  const decision = route('203.0.113.8')
  await question(stream)
  const [uid, bytes] = pod({ name: 'plain', ips: ['203.0.113.8'], hbone: false })
  stream.send(ADDRESS, { [uid]: bytes })
  t.ok(await isWaiting(decision))
  stream.send(ADDRESS, { '/203.0.113.8': bytes })
  t.match(await decision, { endpoints: [{ via: { reason: 'peer-not-enrolled' } }] })
  t.ok(held().includes('plain'))
})

await t.test('a service is used when all of its endpoints are there, not when the first are', async t => {
  const { server, route, held } = await setUp(t)
  const { stream } = await picture(server)
  const decision = route('10.96.0.10')
  t.match(await question(stream), { resourceNamesSubscribe: ['/10.96.0.10'] })
  const [key, echo] = service('10.96.0.10')
  const member = (name: string, ip: string) => pod({ name, ips: [ip], services: { [ECHO]: { 80: 8080 } } })
  stream.send(ADDRESS, { [key]: echo })
  stream.send(ADDRESS, Object.fromEntries([member('a', '10.1.0.11')]))
  t.ok(await isWaiting(decision))
  stream.send(ADDRESS, Object.fromEntries([member('b', '10.1.0.12')]))
  stream.send(ADDRESS, { '/10.96.0.10': echo })
  t.match(await decision, {
    endpoints: [{ ip: '10.1.0.11' }, { ip: '10.1.0.12' }],
    service: { name: 'echo' },
  })
  stream.send(ADDRESS, {}, [ECHO, '/10.96.0.10'])
  await until(() => held().length === 1)
  t.strictSame(held(), ['client'], 'endpoints that nothing leads to are let go')
})

await t.test('the end of the stream ends the wait, but not what is known', async t => {
  const { server, mesh, route } = await setUp(t)
  const { stream } = await picture(server)
  const known = route('10.1.0.7')
  await question(stream)
  const [uid, bytes] = pod({ name: 'a', ips: ['10.1.0.7'], hbone: false })
  stream.send(ADDRESS, { [uid]: bytes, '/10.1.0.7': bytes })
  await known
  const waiting = route('10.1.0.8')
  await question(stream)
  await server.stop()
  t.match(await waiting, { endpoints: [{ via: { reason: 'peer-unknown' } }] })
  t.match(await route('10.1.0.7'), { endpoints: [{ via: { reason: 'peer-not-enrolled' } }] })
  t.notOk(mesh.canAsk)

  await server.restart()
  const again = await server.nextStream()
  const request = (await again.nextRequests(5))[ADDRESS]!
  t.strictSame([...request.resourceNamesSubscribe].sort(), ['*', '/10.1.0.7', '/10.1.0.8'])
  t.strictSame(request.resourceNamesUnsubscribe, ['*'])
  t.strictSame(request.initialResourceVersions, { [own[0]]: 'v1', [uid]: 'v1', '/10.1.0.7': 'v1' })
})

await t.test('what it did not ask for is not held, and the server is told so', async t => {
  const { server, held } = await setUp(t)
  const { stream } = await picture(server)
  const stray = pod({ name: 'stray', ips: ['10.1.0.30'] })
  stream.send(ADDRESS, Object.fromEntries([stray, service('10.96.0.10')]))
  t.match(await question(stream), { resourceNamesSubscribe: [], resourceNamesUnsubscribe: [stray[0], ECHO] })
  t.strictSame(held(), ['client'])
})

await t.test('too much to tell is not told: what no answer names is gone when each name has one', async t => {
  const { server, route, held } = await setUp(t, { maxRequestBytes: 10 })
  const { stream } = await picture(server)
  const pods = ['10.1.0.7', '10.1.0.8'].map(ip => ({ ip, made: pod({ name: `at-${ip}`, ips: [ip] }) }))
  for (const {
    ip,
    made: [uid, bytes],
  } of pods) {
    const decision = route(ip)
    await question(stream)
    stream.send(ADDRESS, { [uid]: bytes, [`/${ip}`]: bytes })
    await decision
  }
  stream.end()
  const again = await server.nextStream()
  const request = (await again.nextRequests(5))[ADDRESS]!
  t.strictSame(request.initialResourceVersions, {})
  t.strictSame([...request.resourceNamesSubscribe].sort(), ['*', '/10.1.0.7', '/10.1.0.8'])
  const [first] = pods
  again.send(ADDRESS, { [own[0]]: own[1], [first!.made[0]]: first!.made[1], '/10.1.0.7': first!.made[1] })
  t.ok(await isWaiting(until(() => held().length < 3)), 'one name has no answer yet')
  again.send(ADDRESS, {}, ['/10.1.0.8'])
  await until(() => held().length < 3)
  t.strictSame(held(), ['at-10.1.0.7', 'client'])
})

await t.test('opposite an istiod a response is the answer to what it names, and is followed', async t => {
  const { server, route, held } = await setUp(t, { mesh: { culvertTypes: false } })
  const { stream } = await picture(server, false)
  const decision = route('10.96.0.10')
  await question(stream)
  const member = pod({ name: 'a', ips: ['10.1.0.11'], hbone: false, services: { [ECHO]: { 80: 8080 } } })
  stream.send(ADDRESS, Object.fromEntries([service('10.96.0.10'), member]))
  t.match(await decision, { endpoints: [{ ip: '10.1.0.11', via: { reason: 'peer-not-enrolled' } }] })
  const none = route('203.0.113.1')
  await question(stream)
  stream.send(ADDRESS, {}, ['/203.0.113.1'])
  t.match(await none, { endpoints: [{ via: { reason: 'peer-external' } }] })
  stream.send(ADDRESS, {}, [ECHO])
  t.match(
    await question(stream),
    { resourceNamesUnsubscribe: [member[0]] },
    'it has subscribed us to the endpoint',
  )
  t.strictSame(held(), ['client'])
})

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise(resolve => setTimeout(resolve, 2))
}
