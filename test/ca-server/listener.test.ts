import { once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { createConnectRouter } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import { PROVEN } from '../../ca-server/calls.ts'
import { Listener, type ListenerTimeouts } from '../../ca-server/listener.ts'
import { createMetrics } from '../../ca-server/metrics.ts'
import { ReportService } from '../../lib/proto/gen/culvert/v1/report_pb.js'
import { quietLog } from '../helpers/quiet-log.ts'
import { createRoot, issueServer } from '../helpers/test-pki.ts'

const REPORT = '/culvert.v1.ReportService/Report'

/** A listener with one call, which never ends when its instance is `hang`. */
async function listening(t: Test, timeouts: Partial<ListenerTimeouts>) {
  const root = await createRoot('test')
  const serving = async () => {
    const { key, cert } = await issueServer(root)
    return { key, chain: cert, notAfter: new Date(Date.now() + 1e6) }
  }
  const { log, lines } = quietLog('trace')
  const metrics = createMetrics()
  const router = createConnectRouter({ requestGate: context => context.values.get(PROVEN)() }).service(
    ReportService,
    {
      async report({ instance }, context) {
        if (instance === 'hang') await once(context.signal, 'abort')
        return {}
      },
    },
  )
  const options = {
    port: 0,
    address: '127.0.0.1',
    certificate: await serving(),
    router,
    metrics,
    log,
    timeouts,
  }
  const listener = await Listener.open(options)
  t.teardown(() => listener.close(100))
  return { listener, lines, metrics, serving, ca: root.pem, options }
}

function sessionTo(t: Test, port: number, ca: string): ClientHttp2Session {
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca })
  session.on('error', () => undefined)
  t.teardown(() => session.destroy())
  return session
}

function call(session: ClientHttp2Session, instance: string) {
  const stream = session.request({ ':method': 'POST', ':path': REPORT, 'content-type': 'application/json' })
  stream.on('error', () => undefined)
  stream.resume()
  stream.end(JSON.stringify({ instance }))
  return stream
}

await t.test('a client that connects and says nothing is let go', async t => {
  const { listener } = await listening(t, { handshakeMs: 50 })
  const socket = connectTcp(listener.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.resume()
  await once(socket, 'close')
  t.pass('after the time for a handshake')
})

await t.test('a session without calls is let go, one with calls is not', async t => {
  const { listener, ca } = await listening(t, { sweepMs: 20, strangerIdleMs: 100, agentIdleMs: 100 })
  const busy = sessionTo(t, listener.port, ca)
  const stream = call(busy, 'hang')
  const idle = sessionTo(t, listener.port, ca)
  await once(idle, 'close')
  t.notOk(busy.closed, 'the busy one lives')
  stream.close()
  await once(busy, 'close')
})

await t.test('a session that has proved itself may rest longer', async t => {
  const { listener, ca } = await listening(t, { sweepMs: 20, strangerIdleMs: 1 })
  const agent = sessionTo(t, listener.port, ca)
  const stream = call(agent, 'x')
  t.match((await once(stream, 'response'))[0], { ':status': 200 })
  const stranger = sessionTo(t, listener.port, ca)
  await once(stranger, 'close')
  t.notOk(agent.closed)
})

await t.test('a peer that no longer answers is dropped', async t => {
  const { listener, ca, lines } = await listening(t, { sweepMs: 20, pongMs: 1 })
  const socket = connectTls({ port: listener.port, host: '127.0.0.1', ca, ALPNProtocols: ['h2'] })
  socket.on('error', () => undefined)
  await once(socket, 'secureConnect')
  // The preface, empty settings, and then never a pong (RFC 9113 §3.4, §6.5).
  socket.write(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004\0\0\0\0\0', 'latin1'))
  socket.resume()
  await once(socket, 'close')
  t.ok(lines.some(({ msg }) => msg === 'peer does not answer, session dropped'))
})

await t.test('a new certificate serves from the next handshake on, and open sessions live on', async t => {
  const { listener, ca, serving } = await listening(t, {})
  const serial = async () => {
    const socket = connectTls({ port: listener.port, host: '127.0.0.1', ca, ALPNProtocols: ['h2'] })
    await once(socket, 'secureConnect')
    const { serialNumber } = socket.getPeerCertificate()
    socket.destroy()
    return serialNumber
  }
  const open = sessionTo(t, listener.port, ca)
  await once(call(open, 'x'), 'response')
  const before = await serial()
  listener.useCertificate(await serving())
  t.not(await serial(), before)
  t.match((await once(call(open, 'x'), 'response'))[0], { ':status': 200 })
})

await t.test('closing waits for calls no longer than it is told to', async t => {
  const { listener, ca } = await listening(t, {})
  const session = sessionTo(t, listener.port, ca)
  call(session, 'hang')
  const silent = connectTcp(listener.port, '127.0.0.1')
  silent.on('error', () => undefined)
  await once(session, 'remoteSettings')
  const startMs = performance.now()
  await listener.close(50)
  t.ok(performance.now() - startMs < 10_000)
})

await t.test('a port that is taken is a matter of configuration', async t => {
  const { listener, options } = await listening(t, {})
  await t.rejects(Listener.open({ ...options, port: listener.port }), {
    code: 'CONFIG',
    message: `cannot listen on port ${listener.port}`,
  })
})
