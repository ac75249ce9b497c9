import { KeyObject, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createSecureServer, type ServerHttp2Session } from 'node:http2'
import { createServer, type AddressInfo, type Server } from 'node:net'
import t, { type Test } from 'tap'
import { strangerOf } from '../../bench/arms/stranger.ts'
import { clientArgv, clientEnv } from '../../bench/measure/measurement.ts'
import { BenchProcess } from '../../bench/process.ts'
import { createRoot, issueServer } from '../helpers/test-pki.ts'

interface Said {
  readonly sent: number
  readonly refused: number
  readonly sessions: number
}

const RATE = 200
const SECONDS = 0.5

async function attack(t: Test, server: Server, kind: string, credentials: unknown): Promise<Said> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const flood = new BenchProcess({
    name: 'flood',
    argv: clientArgv('flood', '127.0.0.1', port, kind, RATE, SECONDS, '10.0.0.1:80'),
    env: clientEnv(),
  })
  t.teardown(() => flood.stop('SIGKILL'))
  flood.tell(JSON.stringify(credentials))
  const { signal } = new AbortController()
  t.equal(await flood.line(signal), 'ready')
  return JSON.parse(await flood.line(signal)) as Said
}

const root = await createRoot('test')
const rootKey = KeyObject.from(root.keys.privateKey).export({ type: 'pkcs8', format: 'pem' })
const stranger = await strangerOf([`text before\n${rootKey}\0${root.pem} and behind`])

async function http2Server(count: { streams: number; pings: number }): Promise<Server> {
  const server = createSecureServer({
    ...(await issueServer(root)),
    ca: root.pem,
    requestCert: true,
    rejectUnauthorized: true,
  })
  server.on('session', (session: ServerHttp2Session) => {
    session.on('error', () => undefined)
    session.on('ping', () => count.pings++)
    session.on('stream', stream => {
      stream.on('error', () => undefined)
      count.streams++
    })
  })
  return server
}

await t.test('handshakes are begun at the rate that was asked for, and not finished', async t => {
  const first = new Set<number | undefined>()
  let connections = 0
  const server = createServer(socket => {
    connections++
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => first.add(chunk[0]))
    t.teardown(() => socket.destroy())
  })
  const { sent, refused } = await attack(t, server, 'handshakes', {})
  t.equal(sent, RATE * SECONDS)
  t.equal(refused, 0)
  t.ok(connections > sent * 0.8)
  t.strictSame([...first], [0x16], 'each a TLS handshake record')
})

await t.test('tunnels are asked for and reset, on one session of a member', async t => {
  const count = { streams: 0, pings: 0 }
  const { sent, sessions } = await attack(t, await http2Server(count), 'resets', stranger)
  t.equal(sent, RATE * SECONDS)
  t.ok(sessions >= 1)
  t.ok(count.streams > 0, `${count.streams} heard of`)
})

await t.test('PINGs come at the rate that was asked for', async t => {
  const count = { streams: 0, pings: 0 }
  const { sent } = await attack(t, await http2Server(count), 'pings', stranger)
  t.equal(sent, RATE * SECONDS)
  t.ok(count.pings > sent * 0.8, `${count.pings} heard of`)
})

await t.test('a stranger is signed for by the authority whose key is there, and by no other', async t => {
  const certificate = new X509Certificate(stranger.cert)
  t.ok(certificate.verify(new X509Certificate(root.pem).publicKey))
  t.equal(certificate.subjectAltName, 'URI:spiffe://cluster.local/ns/bench/sa/stranger')
  await t.rejects(strangerOf([root.pem]), { code: 'PKI' })
  await t.rejects(strangerOf([root.pem, await createRootKey()]), { code: 'PKI' })
})

async function createRootKey(): Promise<string> {
  const { keys } = await createRoot('other')
  return KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' })
}
