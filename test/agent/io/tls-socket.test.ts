import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import t from 'tap'
import { TlsSocket } from '../../../agent/io/tls-socket.ts'
import { closeFd, dupFd } from '../../../agent/sys/fd.ts'
import { openssl } from '../../../agent/sys/openssl.ts'
import { fdPair, BareEnd, settled } from '../../helpers/io.ts'
import { ours, securedPair, securedWithNode, Sink, withNode } from '../../helpers/tls-ends.ts'

const MIB = 1024 * 1024
const SIDES = ['client', 'server'] as const

t.afterEach(() => {
  t.equal(
    openssl.ERR_get_error(),
    0,
    'no connection leaves an error behind that another could take for its own',
  )
})

for (const side of SIDES) {
  await t.test(`as ${side} it carries both directions with Node at the other end`, async t => {
    const { own, node, sink } = await securedWithNode(t, side)
    t.equal(own.alpn(), 'h2')
    t.equal(node.alpnProtocol, 'h2')
    t.match(own.peerCertificate()?.subjectAltName, 'spiffe://cluster.local/ns/test/sa/theirs')
    t.equal(node.getPeerCertificate().subjectaltname, 'URI:spiffe://cluster.local/ns/test/sa/ours')
    t.equal(node.getProtocol(), 'TLSv1.3')
    const up = randomBytes(3 * MIB + 1)
    const down = randomBytes(2 * MIB + 5)
    const atNode: Buffer[] = []
    node.on('data', (chunk: Buffer) => atNode.push(chunk))
    const scratch = Buffer.alloc(100_000)
    for (let at = 0; at < up.length; at += scratch.length) {
      const count = up.copy(scratch, 0, at, at + scratch.length)
      own.write(scratch, count)
      scratch.fill(0) // which is the caller's again
    }
    node.write(down)
    await sink.until(() => sink.bytes === down.length)
    own.end()
    await once(node, 'end')
    t.ok(Buffer.concat(atNode).equals(up))
    t.ok(sink.all.equals(down))
    t.ok(sink.closings.length === 0, 'nothing is told after end')
  })

  await t.test(`as ${side} it hears an end in order, and one without a word, as an end`, async t => {
    for (const isTold of [true, false]) {
      const { own, node, raw, sink } = await securedWithNode(t, side)
      node.write('last words')
      await sink.until(() => sink.text === 'last words')
      if (isTold) node.end()
      else raw.destroy()
      await sink.until(() => sink.closings.length > 0)
      t.strictSame(sink.closings, [undefined])
      t.ok(own.isClosed)
    }
  })

  await t.test(`as ${side} it hears a reset with its name, and what came before it`, async t => {
    const { own, raw, node, sink } = await securedWithNode(t, side)
    node.write('last words')
    await sink.until(() => sink.text === 'last words')
    raw.resetAndDestroy()
    await sink.until(() => sink.closings.length > 0)
    t.match(sink.closings, [{ code: 'ECONNRESET' }])
    t.ok(own.isClosed)
    own.write(Buffer.from('too late'), 8)
    own.end()
    own.destroy()
    own.reset()
    await settled()
    t.equal(sink.closings.length, 1)
  })
}

await t.test('data and the end right behind the last flight of the handshake', async t => {
  const { own, node } = await withNode(t, 'server')
  node.write('with the handshake')
  node.end()
  await own.secured
  await settled() // until somebody starts to read
  const sink = new Sink()
  own.start(sink)
  await sink.until(() => sink.closings.length > 0)
  t.equal(sink.text, 'with the handshake')
  t.strictSame(sink.closings, [undefined])
})

await t.test('who asks late whether it is secured is told the truth', async t => {
  const [near, far] = await fdPair()
  const socket = new TlsSocket(near, ours, 'server')
  new BareEnd(t, far).close()
  while (!socket.isClosed) await settled()
  await t.rejects(socket.secured, { name: 'TlsFailure', isSilent: true })
})

await t.test('a peer that does not read holds up nothing but itself, and gets all of it later', async t => {
  const { client, server, atServer } = await securedPair(t)
  const stalled = await securedWithNode(t, 'server')
  const hash = createHash('sha256')
  stalled.node.pause()
  let written = 0
  while (stalled.own.backlog < 3 * MIB) {
    const piece = randomBytes(64 * 1024 + 9)
    stalled.own.write(piece, piece.length)
    hash.update(piece)
    written += piece.length
  }
  t.equal(stalled.sink.drains, 0)
  client.write(Buffer.from('meanwhile'), 9)
  await atServer.until(() => atServer.text === 'meanwhile')
  t.ok(client.backlog === 0 && server.backlog === 0)
  const got = createHash('sha256')
  let bytes = 0
  stalled.node.on('data', (chunk: Buffer) => {
    got.update(chunk)
    bytes += chunk.length
  })
  stalled.node.resume()
  stalled.node.write('and it is heard meanwhile')
  await stalled.sink.until(() => stalled.sink.drains > 0)
  t.equal(stalled.own.backlog, 0)
  stalled.own.end()
  await once(stalled.node, 'end')
  t.equal(bytes, written)
  t.equal(got.digest('hex'), hash.digest('hex'))
  t.equal(stalled.sink.text, 'and it is heard meanwhile')
})

await t.test('what waits when it is ended leaves first', async t => {
  const { own, node } = await securedWithNode(t, 'client')
  const piece = randomBytes(200_000)
  node.pause()
  let written = 0
  while (own.backlog < MIB) {
    own.write(piece, piece.length)
    written += piece.length
  }
  own.end()
  own.write(piece, piece.length)
  let bytes = 0
  node.on('data', (chunk: Buffer) => (bytes += chunk.length))
  node.resume()
  await once(node, 'end')
  t.equal(bytes, written)
})

await t.test('a peer that never reads cannot keep an ended socket', async t => {
  const { own, node } = await securedWithNode(t, 'client')
  node.pause()
  const piece = Buffer.alloc(MIB)
  while (own.backlog < MIB) own.write(piece, piece.length)
  own.end()
  const hold = setTimeout(() => undefined, 5000)
  while (!own.isClosed) await new Promise(resolve => setTimeout(resolve, 10))
  clearTimeout(hold)
  t.ok(own.isClosed)
})

await t.test('a write that fails is told after the call, once', async t => {
  const [near, far] = await fdPair()
  const [own, end] = [new TlsSocket(near, ours, 'client'), new TlsSocket(far, ours, 'server')]
  t.teardown(() => own.destroy())
  await Promise.all([own.secured, end.secured])
  const sink = new Sink()
  own.start(sink)
  await settled()
  end.reset()
  own.write(Buffer.from('lost'), 4)
  t.strictSame(sink.closings, [])
  t.ok(own.isClosed)
  own.write(Buffer.from('as well'), 7)
  await sink.until(() => sink.closings.length > 0)
  await settled()
  t.match(sink.closings, [{ code: 'ECONNRESET' }])
})

for (const [how, leave] of [
  ['destroys', (socket: TlsSocket) => socket.destroy()],
  ['resets', (socket: TlsSocket) => socket.reset()],
  ['ends', (socket: TlsSocket) => socket.end()],
] as const)
  await t.test(`whoever ${how} it in what it is told hears nothing more`, async t => {
    const { client, server, atClient } = await securedPair(t)
    const all = Buffer.alloc(2 * MIB, 'x')
    let isDone = false
    atClient.onReceived = () => {
      t.notOk(isDone)
      isDone = true
      leave(client)
      client.write(all, 5)
    }
    server.write(all, all.length)
    server.end()
    await atClient.until(() => isDone)
    while (!client.isClosed) await settled()
    await settled()
    t.strictSame(atClient.closings, [])
  })

await t.test('to end one in what another is told leaves the bytes of the other alone', async t => {
  const pairs = [await securedPair(t), await securedPair(t)] as const
  await settled()
  const seen: string[] = []
  const heard = Promise.withResolvers<void>()
  for (const [at, { atClient }] of pairs.entries())
    atClient.onReceived = (bytes, length) => {
      pairs[1 - at]!.client.end() // which has something to read, too
      seen.push(bytes.toString('latin1', 0, length) === `${at}`.repeat(400) ? 'its own' : 'of the other')
      heard.resolve()
    }
  for (const [at, { server }] of pairs.entries()) server.write(Buffer.alloc(400, `${at}`), 400)
  await heard.promise
  await settled()
  t.strictSame(seen, ['its own'])
})

await t.test('descriptors are given back, whatever became of the handshake', async t => {
  const lowest = () => {
    const fd = dupFd(0)
    closeFd(fd)
    return fd
  }
  await settled()
  const before = lowest()
  for (let round = 0; round < 12; round++) {
    const [near, far] = await fdPair()
    const end = new BareEnd(t, far)
    const socket = new TlsSocket(near, ours, round % 2 ? 'client' : 'server')
    if (round % 3 === 0) end.send('no TLS at all, but long enough to be looked at')
    if (round % 3 === 1) end.reset()
    if (round % 3 === 2) socket.destroy()
    await t.rejects(socket.secured, { name: 'TlsFailure' })
    end.close()
  }
  t.equal(lowest(), before)
})
