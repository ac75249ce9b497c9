import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { Listener } from '../../../agent/io/listener.ts'
import { TlsSocket } from '../../../agent/io/tls-socket.ts'
import { closeFd } from '../../../agent/sys/fd.ts'
import { openssl } from '../../../agent/sys/openssl.ts'
import { listenTcp } from '../../../agent/sys/socket.ts'
import { localAddress } from '../../../agent/sys/sockopt.ts'
import { ENDED, TlsChannel, WANTS_READ, WANTS_WRITE } from '../../../agent/sys/tls-channel.ts'
import { BareEnd, fdPair } from '../../helpers/io.ts'
import { nodeOptions, ours, Sink, theirs } from '../../helpers/tls-ends.ts'

const REKEY = { rekeyAfterBytes: 100_000 }
const MIB = 1024 * 1024

t.afterEach(() => {
  t.equal(openssl.ERR_get_error(), 0, 'nothing is left of what failed')
})

const turn = () => new Promise(resolve => setImmediate(resolve))

async function shakeHands(channel: TlsChannel): Promise<void> {
  while (channel.handshake() !== 0) await turn()
}

/** Everything written, however long the peer takes. */
async function writeAll(channel: TlsChannel, bytes: Buffer): Promise<void> {
  for (;;) {
    const written = channel.write(bytes, bytes.length)
    if (written === true) return
    if (written === false) {
      while (!channel.flush()) await turn()
      return
    }
    await turn()
  }
}

async function readAll(channel: TlsChannel, bytes: number): Promise<Buffer> {
  const into = Buffer.alloc(20_000)
  const pieces: Buffer[] = []
  for (let got = 0; got < bytes;) {
    const count = channel.read(into)
    if (count === ENDED) throw new Error(`ended after ${got} bytes`)
    if (count < 0) await turn()
    else {
      pieces.push(Buffer.from(into.subarray(0, count)))
      got += count
    }
  }
  return Buffer.concat(pieces)
}

/** Two channels over one connection, past the handshake. */
async function channels(t: Test, options = {}): Promise<[client: TlsChannel, server: TlsChannel]> {
  const [near, far] = await fdPair()
  const pair = [
    new TlsChannel(ours, near, 'client', options),
    new TlsChannel(ours, far, 'server', options),
  ] as const
  t.teardown(() => {
    for (const channel of pair) channel.free()
    closeFd(near)
    closeFd(far)
  })
  await Promise.all(pair.map(shakeHands))
  return [...pair]
}

await t.test('both directions go on after many new keys, with Node at the other end', async t => {
  for (const side of ['client', 'server'] as const) {
    const [near, far] = await fdPair()
    t.teardown(() => closeFd(near))
    const raw = new Socket({ fd: far, allowHalfOpen: true })
    const { connect } = await import('node:tls')
    const node =
      side === 'server'
        ? connect({ ...nodeOptions(theirs), socket: raw })
        : new TLSSocket(raw, { ...nodeOptions(theirs), isServer: true })
    node.on('error', err => t.error(err))
    t.teardown(() => node.destroy())
    const channel = new TlsChannel(ours, near, side, REKEY)
    t.teardown(() => channel.free())
    await shakeHands(channel)
    const up = Buffer.alloc(2 * MIB)
    for (let at = 0; at < up.length; at += 4) up.writeUInt32BE(at, at)
    const atNode: Buffer[] = []
    node.on('data', (chunk: Buffer) => atNode.push(chunk))
    for (let at = 0; at < up.length; at += 50_000) await writeAll(channel, up.subarray(at, at + 50_000))
    node.write(up)
    t.ok((await readAll(channel, up.length)).equals(up))
    channel.shutdown()
    await once(node, 'end')
    t.ok(Buffer.concat(atNode).equals(up))
  }
})

await t.test('both take new keys of each other’s at the same time', async t => {
  const [client, server] = await channels(t, REKEY)
  const all = Buffer.alloc(MIB, 'x')
  const [atServer, atClient] = await Promise.all([
    readAll(server, all.length),
    readAll(client, all.length),
    ...[client, server].map(async channel => {
      for (let at = 0; at < all.length; at += 30_000) await writeAll(channel, all.subarray(at, at + 30_000))
    }),
  ])
  t.ok(atServer.equals(all) && atClient.equals(all))
})

await t.test('a peer that asks for new keys is given them, and the connection goes on', async t => {
  const listening = listenTcp({ port: 0, ipv6: false })
  const { port } = localAddress(listening)!
  const sink = new Sink()
  const accepted = Promise.withResolvers<TlsSocket>()
  const listener = new Listener(
    listening,
    fd => accepted.resolve(new TlsSocket(fd, ours, 'server')),
    err => t.error(err),
  )
  t.teardown(() => listener.close())
  const dir = t.testdir({ 'key.pem': theirs.key, 'chain.pem': theirs.chain, 'roots.pem': theirs.roots })
  const file = (name: string) => join(dir, name)
  const foreign = spawn(
    'openssl',
    ['s_client', '-connect', `127.0.0.1:${port}`, '-alpn', 'h2', '-key', file('key.pem')].concat([
      '-cert',
      file('chain.pem'),
      '-CAfile',
      file('roots.pem'),
      '-tls1_3',
    ]),
    { stdio: ['pipe', 'pipe', 'pipe'] },
  )
  t.teardown(() => foreign.kill())
  let said = ''
  const watchers = new Set<() => void>()
  for (const stream of [foreign.stdout, foreign.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      for (const watch of watchers) watch()
    })
  const hears = (text: string) =>
    new Promise<void>(resolve => {
      const watch = () => void (said.includes(text) && resolve())
      watchers.add(watch)
      watch()
    })
  const socket = await accepted.promise
  t.teardown(() => socket.destroy())
  await socket.secured
  socket.start(sink)
  const answer = async (text: string) => {
    socket.write(Buffer.from(text), text.length)
    await hears(text)
  }
  await answer('at first\n')
  for (const [command, line] of [
    ['k', 'after its own'],
    ['K', 'after both'],
  ] as const) {
    foreign.stdin.write(`${command}\n`)
    await hears('KEYUPDATE')
    said = ''
    foreign.stdin.write(`${line}\n`)
    await sink.until(() => sink.text.endsWith(`${line}\n`))
    await answer(`answer ${line}\n`)
    await answer(`and another ${line}\n`)
  }
  t.strictSame(sink.closings, [])
})

await t.test('what the kernel does not take waits here, then with the caller', async t => {
  const [client, server] = await channels(t)
  const piece = Buffer.alloc(100_000, 'y')
  let taken = 0
  let answer = client.write(piece, piece.length)
  for (; answer === true; taken++) answer = client.write(piece, piece.length)
  t.equal(answer, false)
  taken++ // what waits here is taken
  while ((answer = client.write(piece, piece.length)) !== WANTS_WRITE) taken++
  t.notOk(client.flush())
  t.equal(client.write(piece, piece.length), WANTS_WRITE)
  const reading = readAll(server, (taken + 1) * piece.length)
  await writeAll(client, Buffer.from(piece)) // the same bytes, elsewhere
  t.ok((await reading).equals(Buffer.alloc((taken + 1) * piece.length, 'y')))
})

await t.test('nothing to read, more to read and the end are told apart', async t => {
  const [client, server] = await channels(t)
  const into = Buffer.alloc(100)
  t.equal(server.read(into), WANTS_READ)
  t.notOk(server.hasMore)
  await writeAll(client, Buffer.alloc(150, 'z'))
  t.equal(server.read(into), 100)
  t.ok(server.hasMore)
  t.equal(server.read(into), 50)
  t.notOk(server.hasMore)
  client.shutdown()
  t.equal(server.read(into), ENDED)
  t.equal(server.read(into), ENDED)
  await writeAll(server, Buffer.from('the other direction goes on'))
})

await t.test('what is no record of TLS ends it with OpenSSL’s name for it', async t => {
  const [near, far] = await fdPair()
  t.teardown(() => closeFd(near))
  const end = new BareEnd(t, far)
  const channel = new TlsChannel(ours, near, 'server')
  t.notOk(channel.hasHeard)
  t.equal(channel.handshake(), WANTS_READ)
  end.send('GET / HTTP/1.1\r\n\r\n')
  t.throws(() => channel.handshake(), { name: 'TlsFailure', code: 'ERR_SSL_HTTP_REQUEST' })
  t.ok(channel.hasHeard)
  channel.free()
  channel.free()
  for (const use of [() => channel.read(Buffer.alloc(1)), () => channel.flush(), () => channel.alpn()])
    t.throws(use, { message: 'TLS failed' })
  t.notOk(channel.hasMore)
  t.notOk(channel.hasHeard)
  channel.shutdown()
})

await t.test('a record that was tampered with ends the connection it came on, and no other', async t => {
  const [near, far] = await fdPair()
  const end = new BareEnd(t, far)
  const channel = new TlsChannel(ours, near, 'server')
  t.teardown(() => closeFd(near))
  t.teardown(() => channel.free())
  const other = new TlsChannel(ours, end.fd, 'client')
  await Promise.all([shakeHands(channel), shakeHands(other)])
  const [client, server] = await channels(t)
  end.send(Buffer.concat([Buffer.from([23, 3, 3, 0, 32]), Buffer.alloc(32)]))
  t.throws(() => channel.read(Buffer.alloc(100)), { code: 'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC' })
  t.equal(server.read(Buffer.alloc(100)), WANTS_READ)
  await writeAll(client, Buffer.from('untouched'))
  t.equal(String(await readAll(server, 9)), 'untouched')
  other.free()
})
