import { readdirSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { createConnectRouter } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { FLAG, FRAME, PREFACE } from '../../agent/hbone/protocol.ts'
import { Listener } from '../../ca-server/listener.ts'
import { createMetrics } from '../../ca-server/metrics.ts'
import { TestCa } from '../helpers/ca-server.ts'
import { makeCsr } from '../helpers/csr.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../helpers/kube-world.ts'
import { quietLog } from '../helpers/quiet-log.ts'
import { RawPeer, data, frame, ping, repeat, rst, settings, windowUpdate } from '../helpers/raw-peer.ts'
import { abort } from '../helpers/tcp.ts'
import { createRoot, issueServer } from '../helpers/test-pki.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const WORLD = [kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED), kubePod('client')]
const CREATE = '/istio.v1.auth.IstioCertificateService/CreateCertificate'
const MIB = 1024 * 1024

async function tlsTo(t: Test, port: number): Promise<TLSSocket> {
  const below = connectTcp(port, '127.0.0.1')
  below.on('error', () => undefined)
  const socket = connectTls({ socket: below, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  socket.on('error', () => socket.destroy())
  t.teardown(() => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    socket.once('secureConnect', resolve)
    socket.once('close', () => reject(new Error('closed during the handshake')))
  })
  return socket
}

async function peerOf(t: Test, port: number): Promise<RawPeer> {
  return new RawPeer(await tlsTo(t, port), { acknowledges: false }).hello()
}

function call(peer: RawPeer, streamId: number, authorization = ''): RawPeer {
  return peer.headers(streamId, [
    [':method', 'POST'],
    [':scheme', 'https'],
    [':path', CREATE],
    [':authority', 'ca'],
    ['content-type', 'application/grpc'],
    ...(authorization ? ([['authorization', authorization]] as const) : []),
  ])
}

/** After whatever a test did, an honest agent is served. */
async function stillServes(t: Test, ca: TestCa): Promise<void> {
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const { certChain } = await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  t.equal(certChain.length, 2, 'an honest agent is served')
  t.notOk(
    ca.lines.some(({ level }) => level === 60),
    'nothing fatal happened',
  )
}

await t.test('frames without end cost the session and nobody else', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const before = process.memoryUsage().rss
  const cases: [what: string, attack: (peer: RawPeer) => Buffer][] = [
    ['SETTINGS', () => repeat(settings([4, 1]), 50_000)],
    ['resets', () => Buffer.concat(Array.from({ length: 5000 }, (_, at) => rst(1 + 2 * at, 8)))],
    [
      'CONTINUATION',
      () => Buffer.concat([frame(FRAME.headers, 0, 1), repeat(frame(FRAME.continuation, 0, 1), 50_000)]),
    ],
    ['a header block of 1 MiB', () => frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(MIB))],
    ['a window past its end', () => windowUpdate(0, 0x7fff_ffff)],
    ['DATA on a stream that never was', () => data(1, Buffer.alloc(100))],
    ['garbage for headers', () => frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(500, 0xff))],
    ['a promise', () => frame(FRAME.pushPromise, FLAG.endHeaders, 1, Buffer.alloc(8))],
  ]
  for (const [what, attack] of cases) {
    const peer = await peerOf(t, ca.port)
    await peer.flood(attack(peer))
    await peer.closed()
    t.pass(`${what}: the session has ended`)
  }
  await stillServes(t, ca)
  t.ok(process.memoryUsage().rss < before + 200 * MIB)
})

await t.test('frames that are answered are not answered into memory', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const before = process.memoryUsage().rss
  const peer = await peerOf(t, ca.port)
  peer.socket.pause()
  for (let round = 0; round < 30; round++) {
    void peer.flood(repeat(ping(), 20_000))
    await new Promise(resolve => setImmediate(resolve))
  }
  await stillServes(t, ca)
  t.ok(process.memoryUsage().rss < before + 200 * MIB)
  peer.socket.destroy()
})

await t.test('a call whose body never ends is answered all the same', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const peer = await peerOf(t, ca.port)
  call(peer, 1)
  // A frame of the message at a time, and never the end.
  for (let piece = 0; piece < 5; piece++) peer.send(data(1, Buffer.of(0)))
  const answer = await peer.frame(({ type, streamId }) => type === FRAME.headers && streamId === 1)
  t.ok(answer, 'refused before the body is there: no token')
  for (let streamId = 3; streamId < 600; streamId += 2) call(peer, streamId)
  await peer.frame(({ streamId }) => streamId === 599)
  t.pass('and so are 300 more')
  await stillServes(t, ca)
})

await t.test('headers that never end and pings that are never answered are not waited for', async t => {
  const root = await createRoot('test')
  const { key, cert } = await issueServer(root)
  const listener = await Listener.open({
    port: 0,
    address: '127.0.0.1',
    certificate: { key, chain: cert, notAfter: new Date(Date.now() + 1e6) },
    router: createConnectRouter(),
    metrics: createMetrics(),
    log: quietLog().log,
    timeouts: { handshakeMs: 200, sweepMs: 50, strangerIdleMs: 100, pongMs: 500 },
  })
  t.teardown(() => listener.close(100))
  const halves: [what: string, bytes: Buffer][] = [
    ['half a preface', PREFACE.subarray(0, 10)],
    ['a preface and no SETTINGS', PREFACE],
    ['half a frame', Buffer.concat([PREFACE, settings(), Buffer.of(0, 0)])],
    [
      'half a header block',
      Buffer.concat([PREFACE, settings(), frame(FRAME.headers, 0, 1, Buffer.of(0x83))]),
    ],
    ['nothing', Buffer.alloc(0)],
  ]
  for (const [what, bytes] of halves) {
    const peer = new RawPeer(await tlsTo(t, listener.port)).send(bytes)
    await peer.closed()
    t.pass(what)
  }
})

await t.test('connections aborted in any phase leave no descriptor', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const token = `Bearer ${await ca.issuer.token()}`
  const phases: (() => Promise<void>)[] = [
    () =>
      new Promise(resolve => {
        const socket = connectTcp(ca.port, '127.0.0.1', () => abort(socket))
        socket.on('error', () => undefined).once('close', () => resolve())
      }),
    () =>
      new Promise(resolve => {
        const socket = connectTcp(ca.port, '127.0.0.1', () => {
          socket.write(Buffer.from('160301020001000001fc0303', 'hex'), () => abort(socket))
        })
        socket.on('error', () => undefined).once('close', () => resolve())
      }),
    async () => abort(await tlsTo(t, ca.port)),
    async () => abort((await peerOf(t, ca.port)).socket),
    async () => {
      const peer = call(await peerOf(t, ca.port), 1, token)
      peer.send(data(1, Buffer.from([0, 0, 0, 1, 0, 1, 2, 3])))
      await peer.frame(({ type }) => type === FRAME.settings)
      abort(peer.socket)
    },
  ]
  const round = () => Promise.all(phases.map(phase => phase()))
  await round()
  await stillServes(t, ca)
  const descriptors = () => readdirSync('/proc/self/fd').length
  const before = descriptors()
  for (let rounds = 0; rounds < 100; rounds++) await round()
  await stillServes(t, ca)
  // Those of sockets that have just ended go in the next turns of the loop.
  for (let turns = 0; turns < 1000 && descriptors() > before + 5; turns++) await new Promise(setImmediate)
  t.ok(descriptors() <= before + 5, `${descriptors()} now, ${before} before`)
})
