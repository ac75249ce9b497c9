import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { ClientSession } from '../../../agent/hbone/client.ts'
import { DEFAULT_SESSION } from '../../../agent/hbone/limits.ts'
import { ServerSession, type ConnectRequest } from '../../../agent/hbone/server.ts'
import type { Tunnel } from '../../../agent/hbone/tunnel.ts'
import { TlsSocket } from '../../../agent/io/tls-socket.ts'
import { relayTunnel } from '../../../agent/proxy/relay.ts'
import { watchRelay } from '../../helpers/relays.ts'
import { agentPair } from '../../helpers/tcp.ts'
import { fdPair, settled } from '../../helpers/io.ts'
import { ours } from '../../helpers/tls-ends.ts'

const MIB = 1024 * 1024
const HOUR_MS = 3_600_000

/** Two sessions over TLS, as between two nodes. */
async function sessions(t: Test) {
  const [near, far] = await fdPair()
  const [tls, peerTls] = [new TlsSocket(near, ours, 'client'), new TlsSocket(far, ours, 'server')]
  await Promise.all([tls.secured, peerTls.secured])
  const requests: ((request: ConnectRequest) => void)[] = []
  const server = new ServerSession(peerTls, DEFAULT_SESSION, request => requests.shift()!(request))
  const client = new ClientSession(tls, DEFAULT_SESSION)
  t.teardown(() => {
    client.destroy()
    server.destroy()
  })
  await client.ready()
  const open = async (): Promise<[near: Tunnel, far: Tunnel]> => {
    const asked = new Promise<ConnectRequest>(resolve => requests.push(resolve))
    const opening = client.connect('10.0.0.1:80', [])
    const request = await asked
    request.respond(200)
    return [(await opening).tunnel, request.tunnel]
  }
  return { client, server, tls, peerTls, open }
}

/** Two applications with a whole data plane between them. */
async function connection(t: Test, open: () => Promise<[Tunnel, Tunnel]>) {
  const [one, nearApp] = await agentPair(t)
  const [other, farApp] = await agentPair(t)
  const [near, far] = await open()
  const relays = [
    watchRelay(owner => relayTunnel(nearApp, near, owner, HOUR_MS)),
    watchRelay(owner => relayTunnel(farApp, far, owner, HOUR_MS)),
  ]
  return { one, other, relays }
}

async function digest(socket: Socket): Promise<string> {
  const hash = createHash('sha256')
  socket.on('data', (chunk: Buffer) => hash.update(chunk))
  await once(socket, 'end')
  return hash.digest('hex')
}

const digestOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

await t.test('eight connections at once, megabytes in both directions, arrive as they were', async t => {
  const { open } = await sessions(t)
  await Promise.all(
    Array.from({ length: 8 }, async (_, at) => {
      const { one, other, relays } = await connection(t, open)
      const up = randomBytes(2 * MIB + at)
      const down = randomBytes(MIB + at)
      one.end(up)
      other.end(down)
      t.strictSame(await Promise.all([digest(other), digest(one)]), [digestOf(up), digestOf(down)])
      for (const relay of relays) t.strictSame(await relay.ended, {})
    }),
  )
})

await t.test('one whose application does not read holds up itself only', async t => {
  const { open } = await sessions(t)
  const stalled = await connection(t, open)
  stalled.other.pause()
  const much = randomBytes(24 * MIB)
  stalled.one.end(much)
  for (let trip = 0; trip < 20; trip++) {
    const { one, other } = await connection(t, open)
    one.write(`question ${trip}`)
    t.equal(String((await once(other, 'data'))[0]), `question ${trip}`)
    one.end()
    other.end()
  }
  const rest = digest(stalled.other)
  stalled.other.resume()
  t.equal(await rest, digestOf(much))
})

await t.test('a lost connection is a reset for every application on it, once', async t => {
  for (const lose of ['destroy', 'reset'] as const) {
    const { open, client, server, peerTls } = await sessions(t)
    const all = await Promise.all(Array.from({ length: 5 }, () => connection(t, open)))
    const errors = all.flatMap(({ one, other }) => [once(one, 'error'), once(other, 'error')])
    const ends = [client, server].map(
      session => new Promise<Error | undefined>(resolve => session.onClosed(resolve)),
    )
    for (const { one } of all) one.write('on its way')
    peerTls[lose]()
    server.destroy()
    for (const [err] of (await Promise.all(errors)) as [NodeJS.ErrnoException][])
      t.equal(err.code, 'ECONNRESET')
    await Promise.all(ends)
  }
})

await t.test('a session that ends in order closes its connection on both sides', async t => {
  const { client, server, tls, peerTls, open } = await sessions(t)
  const { one, other, relays } = await connection(t, open)
  const ends = [client, server].map(
    session => new Promise<Error | undefined>(resolve => session.onClosed(resolve)),
  )
  client.goaway()
  one.end('the last of it')
  t.equal(await digest(other), digestOf(Buffer.from('the last of it')))
  other.end()
  one.resume()
  for (const relay of relays) t.strictSame(await relay.ended, {})
  t.strictSame(await Promise.all(ends), [undefined, undefined])
  while (!tls.isClosed || !peerTls.isClosed) await settled()
})

await t.test('connections that are over leave no memory behind', async t => {
  const { collectGarbage } = await import('../../../lib/garbage.ts')
  const use = async (times: number) => {
    for (let at = 0; at < times; at++) {
      const [near, far] = await fdPair()
      const ends = [new TlsSocket(near, ours, 'client'), new TlsSocket(far, ours, 'server')]
      const sides = await Promise.all(ends.map(end => end.secured))
      t.equal(sides.length, 2)
      ends[0]!.write(randomBytes(100_000), 100_000)
      for (const end of ends) {
        end.peerCertificate()
        end.destroy()
      }
    }
    await collectGarbage()
    return process.memoryUsage.rss() / MIB
  }
  await use(60)
  const before = await use(60)
  const after = await use(150)
  // An SSL object, its buffers and its certificates are 100 KB or more of each connection.
  t.ok(after - before < 12, `${(after - before).toFixed(1)} MiB more after 150 connections`)
})
