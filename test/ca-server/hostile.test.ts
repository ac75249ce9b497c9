import { once, type EventEmitter } from 'node:events'
import {
  connect as connectHttp2,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
} from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import t, { type Test } from 'tap'
import { TestCa } from '../helpers/ca-server.ts'
import { makeCsr } from '../helpers/csr.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../helpers/kube-world.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const WORLD = [kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED), kubePod('client')]
const CREATE = '/istio.v1.auth.IstioCertificateService/CreateCertificate'
const DISCOVERY = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources'

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

/** Sends bytes over TCP and waits until the server ends the connection. */
async function sendRaw(port: number, bytes: Uint8Array): Promise<void> {
  const socket = connectTcp(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.resume()
  socket.write(bytes)
  await once(socket, 'close')
}

async function tls(ca: TestCa, more: ConnectionOptions = {}) {
  const socket = connectTls({
    port: ca.port,
    host: '127.0.0.1',
    ca: ca.rootPem,
    ALPNProtocols: ['h2'],
    ...more,
  })
  socket.on('error', () => undefined)
  socket.resume()
  await once(socket, 'secureConnect')
  return socket
}

/** Not `once`, which rejects when there is an error before. */
function closed(stream: EventEmitter): Promise<void> {
  return new Promise(resolve => {
    stream.once('close', () => resolve())
  })
}

function http2(t: Test, ca: TestCa): ClientHttp2Session {
  const session = connectHttp2(`https://127.0.0.1:${ca.port}`, { ca: ca.rootPem })
  session.on('error', () => undefined)
  t.teardown(() => session.destroy())
  return session
}

/** The status that ends a gRPC call: in the trailers, or in the headers when there is nothing else. */
async function grpcStatus(stream: ClientHttp2Stream): Promise<unknown> {
  const [headers] = (await once(stream, 'response')) as [Record<string, unknown>]
  if (headers['grpc-status'] !== undefined) return headers['grpc-status']
  const [trailers] = (await once(stream, 'trailers')) as [Record<string, unknown>]
  return trailers['grpc-status']
}

await t.test('bytes that are no TLS are rejected with a line', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  await sendRaw(ca.port, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
  await sendRaw(ca.port, Buffer.alloc(64 * 1024, 0xff))
  await ca.line({ msg: 'connection rejected', cause: 'tls', peer: '127.0.0.1' })
  await stillServes(t, ca)
  t.match(await ca.metrics(), /culvert_ca_rejected_connections_total\{cause="tls"\} 2/)
})

await t.test('a flood of bad connections is counted, not logged line by line', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  for (let round = 0; round < 10; round++)
    await Promise.all(Array.from({ length: 10 }, () => sendRaw(ca.port, Buffer.from('x'.repeat(100)))))
  t.equal(ca.lines.filter(({ msg }) => msg === 'connection rejected').length, 20)
  t.match(await ca.metrics(), 'culvert_ca_rejected_connections_total{cause="tls"} 100')
  await stillServes(t, ca)
})

await t.test('garbage instead of HTTP/2 ends the session', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const socket = await tls(ca)
  socket.write(Buffer.alloc(10_000, 0x41))
  await once(socket, 'close')
  await ca.line({ msg: 'connection rejected', cause: 'http2' })

  const broken = await tls(ca)
  broken.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  broken.write(Buffer.from([0xff, 0xff, 0xff, 0x01, 0xff, 0, 0, 0, 0])) // a HEADERS frame of 16 MiB on stream 0
  await once(broken, 'close')
  await stillServes(t, ca)
})

await t.test('a protocol that is neither HTTP/2 nor HTTP/1.1 is not spoken', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const socket = connectTls({ port: ca.port, host: '127.0.0.1', ca: ca.rootPem, ALPNProtocols: ['spdy/3'] })
  await t.rejects(once(socket, 'secureConnect'))
  await stillServes(t, ca)
})

await t.test('TLS before 1.2 is not spoken', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const socket = connectTls({
    port: ca.port,
    host: '127.0.0.1',
    ca: ca.rootPem,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1',
    ciphers: 'ALL:@SECLEVEL=0',
  })
  await t.rejects(once(socket, 'secureConnect'))
  await stillServes(t, ca)
})

await t.test('garbage instead of HTTP/1.1 ends the connection', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const socket = await tls(ca, { ALPNProtocols: ['http/1.1'] })
  socket.write('no such thing\r\n\r\n')
  await once(socket, 'close')
  await ca.line({ msg: 'connection rejected', cause: 'http1' })
  await stillServes(t, ca)
})

await t.test('an authority that is no authority is a bad request', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const session = http2(t, ca)
  for (const authority of ['[[', 'a b', 'x:99999999', '%%', '']) {
    const stream = session.request({ ':method': 'POST', ':path': CREATE, ':authority': authority })
    stream.on('error', () => undefined)
    stream.resume()
    stream.end()
    await closed(stream)
  }
  await ca.line({ msg: 'connection rejected', cause: 'request' })
  await stillServes(t, ca)
})

await t.test('calls that do not exist, wrong methods and wrong types get an answer', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const session = http2(t, ca)
  const authorization = `Bearer ${await ca.issuer.token()}`
  const statusOf = async (headers: Record<string, string>, body = '') => {
    const stream = session.request({ ':method': 'POST', authorization, ...headers })
    stream.resume()
    if (headers[':method'] !== 'GET') stream.end(body)
    const [answer] = (await once(stream, 'response')) as [Record<string, number | string>]
    return answer[':status']
  }
  const json = { 'content-type': 'application/json' }
  t.equal(await statusOf({ ':path': '/nothing' }), 404)
  t.equal(await statusOf({ ':path': '//[' }), 404)
  t.equal(await statusOf({ ':path': CREATE, ':method': 'GET' }), 405)
  t.equal(await statusOf({ ':path': CREATE, 'content-type': 'text/plain' }, 'x'), 415)
  t.equal(await statusOf({ ':path': CREATE, ...json }, '{'), 400)
  t.equal(await statusOf({ ':path': CREATE, ...json }, '{"csr":7}'), 400)
  t.equal(await statusOf({ ':path': CREATE, ...json, 'content-encoding': 'gzip' }, 'x'), 501)
  t.equal(await statusOf({ ':path': CREATE, ...json, authorization: 'Basic eDp5' }, '{}'), 401)
  await stillServes(t, ca)
})

await t.test('a message that says it is larger than it may be is refused before it comes', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const session = http2(t, ca)
  const authorization = `Bearer ${await ca.issuer.token()}`
  for (const path of [CREATE, DISCOVERY]) {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      authorization,
    })
    stream.on('error', () => undefined)
    stream.resume()
    stream.write(Buffer.from([0, 0x7f, 0xff, 0xff, 0xff]))
    t.equal(await grpcStatus(stream), '8')
    stream.close(constants.NGHTTP2_CANCEL)
  }
  await stillServes(t, ca)
})

await t.test('too many and too long headers are refused', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const session = http2(t, ca)
  const many = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`x-${at}`, 'y'.repeat(100)]))
  const stream = session.request({ ':method': 'POST', ':path': CREATE, ...many })
  stream.on('error', () => undefined)
  stream.resume()
  await closed(stream)
  t.not(stream.rstCode, constants.NGHTTP2_NO_ERROR)
  await stillServes(t, ca)
})

await t.test('clients that vanish in the middle of calls leave nothing behind', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const authorization = `Bearer ${await ca.issuer.token()}`
  for (let round = 0; round < 20; round++) {
    const session = connectHttp2(`https://127.0.0.1:${ca.port}`, { ca: ca.rootPem })
    session.on('error', () => undefined)
    for (const path of [CREATE, DISCOVERY]) {
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        authorization,
      })
      stream.on('error', () => undefined)
      stream.write(Buffer.from([0, 0, 0, 1, 0, 1, 2, 3]))
    }
    await once(session, 'connect')
    if (round % 2 === 0) session.socket.destroy()
    else session.destroy()
  }
  await stillServes(t, ca)
  while (!(await ca.metrics()).includes('culvert_ca_discovery_streams 0'));
})

await t.test('one node cannot open discovery streams without end', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const session = http2(t, ca)
  const authorization = `Bearer ${await ca.issuer.token()}`
  const open = () => {
    const stream = session.request({
      ':method': 'POST',
      ':path': DISCOVERY,
      'content-type': 'application/grpc',
      authorization,
    })
    stream.on('error', () => undefined)
    stream.resume()
    return stream
  }
  for (let at = 0; at < 16; at++) open()
  t.equal(await grpcStatus(open()), '8')
  t.match(await ca.metrics(), 'culvert_ca_discovery_streams 16')
  await stillServes(t, ca)
})
