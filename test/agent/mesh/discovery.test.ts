import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { Code, ConnectError } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { Discovery, type DiscoveryOptions, type DiscoveryState } from '../../../agent/mesh/discovery.ts'
import { Mesh } from '../../../agent/mesh/mesh.ts'
import { closeFd } from '../../../agent/sys/fd.ts'
import { listenTcp } from '../../../agent/sys/socket.ts'
import {
  namespaceBytes,
  nodeBytes,
  startDiscoveryServer,
  trustBundleBytes,
  type DiscoveryServer,
  type DiscoveryStream,
} from '../../helpers/discovery-server.ts'
import {
  policyBytes,
  serviceBytes,
  serviceInit,
  uidOf,
  workloadBytes,
  workloadInit,
} from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { createRoot } from '../../helpers/test-pki.ts'

const ADDRESS = 'istio.workload.Address'
const POLICY = 'istio.security.Authorization'
const TYPES = [ADDRESS, POLICY, 'culvert.v1.Namespace', 'culvert.v1.Node', 'culvert.v1.TrustBundle']
const TOKEN = 'secret-token-of-the-test'

const pod = (name: string, ip: string) => workloadBytes(workloadInit({ name, ips: [ip] }))
const pods = (...names: string[]) =>
  Object.fromEntries(names.map((name, at) => [uidOf('shop', name), pod(name, `10.2.0.${at + 1}`)]))

interface Client {
  readonly mesh: Mesh
  readonly discovery: Discovery
  readonly lines: ReturnType<typeof quietLog>['lines']
  stop(): Promise<void>
}

function start(
  t: Test,
  server: Pick<DiscoveryServer, 'url' | 'rootCa'>,
  options: Partial<DiscoveryOptions> = {},
  culvertTypes = true,
): Client {
  const { log, lines } = quietLog()
  const mesh = new Mesh({ nodeName: 'node-a', culvertTypes, culvertWaitMs: 20 })
  const discovery = new Discovery({
    url: server.url,
    node: {
      ip: '192.168.0.1',
      podName: 'agent-1',
      podNamespace: 'culvert-system',
      metadata: { NODE_NAME: 'node-a' },
    },
    kinds: mesh.kinds,
    token: async () => TOKEN,
    rootCa: async () => server.rootCa,
    log,
    backoff: { firstMs: 5, maxMs: 20 },
    settleMs: 20,
    quietMs: 20,
    ...options,
  })
  const abort = new AbortController()
  const running = discovery.run(abort.signal)
  const stop = async () => {
    abort.abort()
    await running
  }
  t.teardown(stop)
  return { mesh, discovery, lines, stop }
}

/** Looks every few milliseconds until the state is as wanted. */
async function until(client: Client, isWanted: (state: DiscoveryState) => boolean): Promise<DiscoveryState> {
  for (;;) {
    const state = client.discovery.state()
    if (isWanted(state)) return state
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}

async function takeAll(stream: DiscoveryStream) {
  return stream.nextRequests(TYPES.length)
}

await t.test('a stream subscribes to every type, takes what it is told and acknowledges it', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server)
  const stream = await server.nextStream()
  t.equal(stream.headers.get('authorization'), `Bearer ${TOKEN}`)
  const first = await takeAll(stream)
  t.strictSame(Object.keys(first), TYPES)
  t.match(first[ADDRESS], {
    node: {
      id: 'ztunnel~192.168.0.1~agent-1.culvert-system~culvert-system.svc.cluster.local',
      metadata: { NODE_NAME: 'node-a' },
    },
    resourceNamesSubscribe: [],
    initialResourceVersions: {},
  })
  t.notOk(client.mesh.isSynced)
  t.strictSame(
    client.mesh.waitsFor,
    TYPES.map(type => `type.googleapis.com/${type}`),
  )

  const service = serviceInit({ name: 'echo', vips: ['10.96.0.10'], ports: { 80: 80 } })
  stream.send(ADDRESS, { ...pods('server'), 'shop/echo.shop.svc.cluster.local': serviceBytes(service) })
  stream.send(POLICY, { 'shop/p': policyBytes({ name: 'p', namespace: 'shop' }) })
  stream.send('culvert.v1.Namespace', { shop: namespaceBytes({ name: 'shop', enrolment: { mesh: true } }) })
  stream.send('culvert.v1.Node', {
    'node-a': nodeBytes({
      name: 'node-a',
      addresses: [Uint8Array.of(192, 168, 0, 1)],
      podCidrs: ['10.1.0.0/24'],
    }),
  })
  const pem = '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n'
  stream.send('culvert.v1.TrustBundle', {
    'cluster.local': trustBundleBytes({ trustDomain: 'cluster.local', roots: [pem] }),
  })
  await client.mesh.whenSynced(AbortSignal.timeout(60_000))
  const acks = await takeAll(stream)
  t.strictSame(
    TYPES.map(type => acks[type]!.responseNonce),
    ['n1', 'n2', 'n3', 'n4', 'n5'],
  )
  t.strictSame(
    TYPES.map(type => acks[type]!.errorDetail),
    TYPES.map(() => undefined),
  )
  t.strictSame(client.mesh.sizes(), {
    workloads: 1,
    addresses: 1,
    services: 1,
    policies: 1,
    namespaces: 1,
    nodes: 1,
    trustBundles: 1,
  })
  t.strictSame(client.mesh.roots('cluster.local'), [pem])
  t.strictSame(client.mesh.nodeAddresses('node-a'), ['192.168.0.1'])
  t.doesNotThrow(() => JSON.stringify(client.mesh.dump()))

  stream.send(ADDRESS, {}, [uidOf('shop', 'server')])
  t.match(await stream.nextRequest(), { responseNonce: 'n6' })
  t.equal(client.mesh.workloads.size, 0)
  t.match(client.discovery.state(), {
    isConnected: true,
    streams: 1,
    types: {
      'type.googleapis.com/istio.workload.Address': { responses: 2, resources: 2, removed: 1, held: 1 },
    },
  })
  t.notMatch(JSON.stringify(client.lines), TOKEN)
})

await t.test('a server without the types of its own is not waited for beyond a moment', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server)
  const stream = await server.nextStream()
  stream.send(ADDRESS, {})
  t.notOk(client.mesh.isSynced)
  stream.send(POLICY, {})
  await client.mesh.whenSynced(AbortSignal.timeout(60_000))
  t.ok(client.mesh.isSynced)
})

await t.test('without such types only the common ones are subscribed to', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server, {}, false)
  const stream = await server.nextStream()
  t.strictSame(Object.keys(await stream.nextRequests(2)), [ADDRESS, POLICY])
  stream.send(POLICY, {})
  stream.send(ADDRESS, {})
  await client.mesh.whenSynced(AbortSignal.timeout(60_000))
  t.pass('synced')
})

await t.test(
  'a malformed resource is rejected by name, keeps its last good version, and the others are taken',
  async t => {
    const server = await startDiscoveryServer(t)
    const client = start(t, server)
    const stream = await server.nextStream()
    await takeAll(stream)
    stream.send(ADDRESS, pods('good', 'turning-bad'))
    await stream.nextRequest()

    const before = client.mesh.workloads.byUid(uidOf('shop', 'turning-bad'))
    const nonce = stream.send(
      ADDRESS,
      {
        [uidOf('shop', 'turning-bad')]: Uint8Array.of(0xff, 0xff, 0xff),
        [uidOf('shop', 'odd')]: workloadBytes(
          workloadInit({ name: 'odd', more: { addresses: [Uint8Array.of(1, 2, 3)] } }),
        ),
        misnamed: pod('good', '10.2.0.1'),
        ...pods('new'),
      },
      [],
      'v2',
    )
    const answer = await stream.nextRequest()
    t.match(answer, { responseNonce: nonce, errorDetail: { code: 3 } })
    t.match(answer.errorDetail!.message, /^3 of 4 rejected: .*turning-bad.*odd.*addresses\[0\].*misnamed/s)
    t.equal(client.mesh.workloads.byUid(uidOf('shop', 'turning-bad')), before)
    t.ok(client.mesh.workloads.byUid(uidOf('shop', 'new')))
    t.match(client.discovery.state().types, {
      'type.googleapis.com/istio.workload.Address': { rejected: 3, held: 3 },
    })

    stream.end()
    const again = await takeAll(await server.nextStream())
    t.strictSame(again[ADDRESS]!.initialResourceVersions, {
      [uidOf('shop', 'good')]: 'v1',
      [uidOf('shop', 'turning-bad')]: 'v1',
      [uidOf('shop', 'new')]: 'v2',
    })
  },
)

await t.test('a resource whose wrapping says another type is rejected', async t => {
  const server = await startDiscoveryServer(t)
  start(t, server)
  const stream = await server.nextStream()
  await takeAll(stream)
  stream.raw({ typeUrl: `type.googleapis.com/${ADDRESS}`, nonce: 'x', resources: [{ name: 'a' }] })
  t.match(await stream.nextRequest(), { responseNonce: 'x', errorDetail: { message: /its type is ''/ } })
})

await t.test('a type that was not asked for is passed over', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server)
  const stream = await server.nextStream()
  await takeAll(stream)
  stream.raw({ typeUrl: 'type.googleapis.com/unheard.of', nonce: 'x' })
  const nonce = stream.send(ADDRESS, pods('a'))
  t.equal((await stream.nextRequest()).responseNonce, nonce)
  t.match(client.lines, [{ level: 'info' }, { level: 'warn', type: 'type.googleapis.com/unheard.of' }])
})

await t.test('a server that goes away leaves what is known, and is told of it when it is back', async t => {
  const server = await startDiscoveryServer(t)
  let connected = 0
  const client = start(t, server, { onConnected: () => connected++ })
  const stream = await server.nextStream()
  await takeAll(stream)
  stream.send(ADDRESS, pods('a', 'b'), [], 'v7')
  await stream.nextRequest()
  t.equal(connected, 1)

  await server.stop()
  const away = await until(client, state => (state.terminations['unreachable'] ?? 0) > 2)
  t.notOk(away.isConnected)
  t.match(away.lastError, /ECONNREFUSED/)
  t.equal(client.mesh.workloads.size, 2)

  await server.restart()
  const next = await server.nextStream()
  const requests = await takeAll(next)
  t.strictSame(requests[ADDRESS]!.initialResourceVersions, {
    [uidOf('shop', 'a')]: 'v7',
    [uidOf('shop', 'b')]: 'v7',
  })
  next.send(ADDRESS, {}, [uidOf('shop', 'b')])
  await next.nextRequest()
  t.strictSame(
    [...client.mesh.workloads.values()].map(workload => workload.name),
    ['a'],
  )
  t.ok(client.discovery.state().isConnected)
  t.equal(connected, 2, 'whoever waits for the server hears of it')
})

await t.test(
  'too much to tell is not told: what a full answer does not name is forgotten, in its own time',
  async t => {
    const server = await startDiscoveryServer(t)
    const client = start(t, server, { maxRequestBytes: 100, quietMs: 500 })
    const stream = await server.nextStream()
    await takeAll(stream)
    stream.send(ADDRESS, pods('a', 'b', 'c', 'd'))
    await stream.nextRequest()
    stream.end()

    const next = await server.nextStream()
    t.strictSame((await takeAll(next))[ADDRESS]!.initialResourceVersions, {})
    next.send(ADDRESS, { [uidOf('shop', 'a')]: pod('a', '10.2.0.1') })
    await next.nextRequest()
    next.send(ADDRESS, {
      [uidOf('shop', 'b')]: pod('b', '10.2.0.2'),
      [uidOf('shop', 'c')]: Uint8Array.of(0xff),
    })
    t.match(await next.nextRequest(), { errorDetail: { code: 3 } })
    t.equal(client.mesh.workloads.size, 4, 'the answer may come in parts')
    await until(client, () => client.mesh.workloads.size < 4)
    t.strictSame(
      [...client.mesh.workloads.values()].map(workload => workload.name),
      ['a', 'b', 'c'],
      'a malformed one was named, so it is there',
    )
  },
)

await t.test('a stream that ends before everything was named forgets nothing', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server, { maxRequestBytes: 0, quietMs: 500 })
  const stream = await server.nextStream()
  await takeAll(stream)
  stream.send(ADDRESS, pods('a', 'b'))
  await stream.nextRequest()
  stream.end()
  const next = await server.nextStream()
  next.send(ADDRESS, pods('a'))
  next.end()
  const last = await server.nextStream()
  await takeAll(last)
  t.equal(client.mesh.workloads.size, 2)
  const nonce = last.send(ADDRESS, pods('a'))
  t.equal((await last.nextRequest()).responseNonce, nonce)
  await until(client, () => client.mesh.workloads.size === 1)
})

await t.test('a first full picture in parts is complete when the server falls quiet', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server, { settleMs: 2000 })
  const stream = await server.nextStream()
  await takeAll(stream)
  for (const type of TYPES.slice(1)) stream.send(type, {})
  await stream.nextRequests(4)
  const many = (from: number) =>
    Object.fromEntries(
      Array.from({ length: 700 }, (_, at) => {
        const name = `pod-${from + at}`
        return [uidOf('shop', name), pod(name, `10.${from / 700}.${at >> 8}.${at & 255}`)]
      }),
    )
  stream.send(ADDRESS, many(0))
  await stream.nextRequest()
  t.notOk(client.mesh.isSynced)
  stream.send(ADDRESS, many(700))
  await client.mesh.whenSynced(AbortSignal.timeout(60_000))
  t.equal(client.mesh.workloads.size, 1400)
})

await t.test('a refusal is counted under its name, and tried again with a new token', async t => {
  const server = await startDiscoveryServer(t)
  let reads = 0
  const client = start(t, server, { token: async () => `token-${++reads}` })
  const refused = await server.nextStream()
  refused.fail(new ConnectError('who are you', Code.Unauthenticated))
  const next = await server.nextStream()
  t.equal(next.headers.get('authorization'), 'Bearer token-2')
  t.match(client.discovery.state(), { terminations: { unauthenticated: 1 }, lastError: /who are you/ })
})

await t.test('a token that cannot be read or sent is reported without itself', async t => {
  const server = await startDiscoveryServer(t)
  for (const token of [
    async () => `two\nlines ${TOKEN}`,
    () => Promise.reject(new Error('ENOENT: token file')),
  ]) {
    const client = start(t, server, { token })
    await until(client, state => (state.terminations['token'] ?? 0) > 1)
    t.notMatch(JSON.stringify([client.lines, client.discovery.state()]), TOKEN)
    await client.stop()
  }
  t.equal(server.connect.connections, 0)
})

await t.test(
  'a server that another root vouches for is not spoken to, until the root is the right one',
  async t => {
    const server = await startDiscoveryServer(t)
    let rootCa = (await createRoot('somebody else')).pem
    const client = start(t, server, { rootCa: async () => rootCa })
    const state = await until(client, state => state.streams > 1)
    t.match(state.lastError, /certificate/)
    rootCa = server.rootCa
    await server.nextStream()
    t.pass('connected with the root read anew')
  },
)

await t.test("roots without a certificate trust nobody, not the system's", async t => {
  const server = await startDiscoveryServer(t)
  const garbled = '-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----'
  for (const rootCa of ['', 'nonsense', garbled]) {
    const client = start(t, server, { rootCa: async () => rootCa })
    await until(client, state => (state.terminations['tls'] ?? 0) > 1)
    await client.stop()
  }
  t.pass('never connected')
})

await t.test('a server of another name is not spoken to', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, {
    url: new URL(server.url.href.replace('localhost', '127.0.0.2')),
    rootCa: server.rootCa,
  })
  await until(client, state => state.streams > 1)
  t.notOk(client.discovery.state().isConnected)
})

await t.test('plain http is refused once and for all', async t => {
  const client = new Discovery({
    url: new URL('http://localhost:1'),
    node: { ip: '192.168.0.1', podName: 'a', podNamespace: 'b' },
    kinds: [],
    token: async () => TOKEN,
    rootCa: async () => undefined,
    log: quietLog().log,
  })
  await t.rejects(client.run(new AbortController().signal), { code: 'CONFIG' })
})

async function rawServer(t: Test, behave: (socket: Socket) => void): Promise<URL> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    behave(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return new URL(`https://localhost:${(server.address() as AddressInfo).port}`)
}

await t.test(
  'garbage instead of TLS, and a connection cut at once, end a stream and nothing else',
  async t => {
    for (const behave of [
      (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      (socket: Socket) => socket.resetAndDestroy(),
    ]) {
      const client = start(t, { url: await rawServer(t, behave), rootCa: (await createRoot('any')).pem })
      await until(client, state => state.streams > 2)
      t.notOk(client.discovery.state().isConnected)
      await client.stop()
    }
  },
)

await t.test('a server that takes the connection and stays silent is given up on', async t => {
  const url = await rawServer(t, () => undefined)
  const client = start(t, { url, rootCa: (await createRoot('any')).pem }, { connectTimeoutMs: 20 })
  const state = await until(client, state => state.streams > 1)
  t.match(state.lastError, /no connection within 20 ms/)
})

await t.test('a server whose machine does not answer at all is given up on, and tried again', async t => {
  // The one place in its queue is taken, so the kernel leaves every other SYN unanswered.
  const port = await freePort()
  const fd = listenTcp({ port, backlog: 0, ipv6: false })
  const first = connect(port, '127.0.0.1')
  first.on('error', () => undefined)
  await once(first, 'connect')
  t.teardown(() => {
    first.destroy()
    closeFd(fd)
  })
  const url = new URL(`https://127.0.0.1:${port}`)
  const client = start(t, { url, rootCa: (await createRoot('any')).pem }, { connectTimeoutMs: 50 })
  const state = await until(client, state => state.streams > 2)
  t.match(state.lastError, /no connection within 50 ms/)
})

await t.test('a server that stops answering pings is given up on', async t => {
  const server = await startDiscoveryServer(t)
  // Between the two: what comes from the server stops to come.
  let isFrozen = false
  const url = await rawServer(t, near => {
    const far = connect(Number(server.url.port), '127.0.0.1')
    far.on('error', () => undefined)
    near.on('data', chunk => far.write(chunk)).on('close', () => far.destroy())
    far.on('data', chunk => isFrozen || near.write(chunk)).on('close', () => near.destroy())
  })
  const options = { pingIntervalMs: 10, pingTimeoutMs: 100 }
  const client = start(t, { url, rootCa: server.rootCa }, options)
  const stream = await server.nextStream()
  stream.send(ADDRESS, {})
  await until(client, state => state.isConnected)
  isFrozen = true
  const state = await until(client, state => state.streams > 1)
  t.match(state, { terminations: { timeout: 1 }, lastError: /ping/ })
})

await t.test('a message that is too big ends the stream, not the process', async t => {
  const server = await startDiscoveryServer(t)
  const client = start(t, server, { maxResponseBytes: 1000 })
  const stream = await server.nextStream()
  stream.send(ADDRESS, pods(...Array.from({ length: 100 }, (_, at) => `pod-${at}`)))
  await until(client, state => state.terminations['resource-exhausted'] === 1)
  t.equal(client.mesh.workloads.size, 0)
})

await t.test('stopping ends the stream at once, wherever it is', async t => {
  const server = await startDiscoveryServer(t)
  const open = start(t, server)
  const stream = await server.nextStream()
  await open.stop()
  await stream.ended
  const connecting = start(t, { url: await rawServer(t, () => undefined), rootCa: server.rootCa })
  await until(connecting, state => state.streams === 1)
  await connecting.stop()
  t.strictSame(open.discovery.state().terminations, {})
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
