import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import t from 'tap'
import { canonicalIp } from '../../lib/address.ts'
import { connectFrom, failureFrom, inPod, serve } from '../helpers/pods.ts'
import { readAll } from '../helpers/tcp.ts'
import { meshPair } from '../helpers/mesh-pair.ts'

await t.test(
  'a connection is carried in a tunnel, and the application sees the client’s own address',
  async t => {
    const { client, server } = await meshPair(t)
    const seen: string[] = []
    await serve(t, server, 8080, socket => {
      seen.push(canonicalIp(socket.remoteAddress!))
      socket.pipe(socket)
    })
    for (const [host, address] of [
      [server.ip, client.ip],
      [server.ip6, client.ip6],
    ] as const) {
      const socket = await connectFrom(t, client, host, 8080)
      socket.end('hello')
      t.equal((await readAll(socket)).toString(), 'hello')
      t.equal(seen.pop(), address)
      const out = await client.record(record => record.destination.ip === host)
      t.match(out, {
        direction: 'outbound',
        reason: 'mtls',
        bytesSent: 5,
        bytesReceived: 5,
        error: undefined,
      })
      t.equal(out.hboneAddress, host.includes(':') ? `[${host}]:15008` : `${host}:15008`)
      const into = await server.record(record => record.destination.ip === host)
      t.match(into, {
        direction: 'inbound',
        reason: 'mtls',
        source: { ip: address, identity: client.identity },
        bytesSent: 5,
      })
    }
  },
)

await t.test('large uploads and downloads arrive as they were sent', async t => {
  const { client, server } = await meshPair(t)
  await serve(t, server, 8080, socket => socket.pipe(socket))
  const socket = await connectFrom(t, client, server.ip, 8080)
  const sent = createHash('sha256')
  const got = createHash('sha256')
  socket.on('data', (chunk: Buffer) => got.update(chunk))
  for (let piece = 0; piece < 64; piece++) {
    const bytes = randomBytes(1024 * 1024)
    sent.update(bytes)
    if (!socket.write(bytes)) await once(socket, 'drain')
  }
  socket.end()
  await once(socket, 'end')
  t.equal(got.digest('hex'), sent.digest('hex'))
})

await t.test('a half-closed connection still gets its answer', async t => {
  const { client, server } = await meshPair(t)
  await serve(t, server, 8080, socket => {
    void readAll(socket).then(request => socket.end(`got ${request.length} bytes`))
  })
  const socket = await connectFrom(t, client, server.ip, 8080)
  socket.end('a question')
  t.equal((await readAll(socket)).toString(), 'got 10 bytes')
})

await t.test('a port that nobody listens on is a reset, at once, and not an end', async t => {
  const { client, server } = await meshPair(t)
  t.equal(await failureFrom(t, client, server.ip, 9), 'ECONNRESET')
  t.match(await client.record(() => true), { reason: 'unreachable', errorCode: 'ECONNREFUSED' })
  t.match(await server.record(() => true), { reason: 'unreachable', errorCode: 'ECONNREFUSED' })
})

await t.test('a reset by the server arrives as a reset, and a reset by the client too', async t => {
  const { client, server } = await meshPair(t)
  const accepted: Socket[] = []
  const errors: string[] = []
  await serve(t, server, 8080, socket => {
    accepted.push(socket)
    socket.on('error', (err: NodeJS.ErrnoException) => errors.push(err.code ?? ''))
    socket.on('data', chunk => {
      if (chunk.toString() === 'reset me') socket.resetAndDestroy()
      else socket.write(chunk)
    })
  })
  const socket = await connectFrom(t, client, server.ip, 8080)
  socket.write('reset me')
  const [err] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
  t.equal(err.code, 'ECONNRESET')
  t.match(await client.record(() => true), { reason: 'mtls', errorCode: 'CONNECT_ERROR' })

  const other = await connectFrom(t, client, server.ip, 8080)
  other.write('hello')
  await once(other, 'data')
  const gone = new Promise(resolve => accepted[1]!.once('close', resolve))
  other.resetAndDestroy()
  await gone
  t.equal(errors.at(-1), 'ECONNRESET')
})

await t.test(
  'plaintext from a pod outside the mesh is let through or refused with a reset, as the decision says',
  async t => {
    const { server, old } = await meshPair(t)
    const seen: string[] = []
    await serve(t, server, 8080, socket => {
      seen.push(canonicalIp(socket.remoteAddress!))
      socket.pipe(socket)
    })
    const socket = await connectFrom(t, old, server.ip, 8080)
    socket.end('hello')
    t.equal((await readAll(socket)).toString(), 'hello')
    t.equal(seen[0], old.ip)
    t.match(await server.record(() => true), {
      reason: 'peer-not-enrolled',
      direction: 'inbound',
      source: { ip: old.ip },
    })

    server.admit = () => ({ kind: 'refuse', reason: 'strict', detail: 'strict', peer: {} })
    server.plane.handle({ type: 'invalidate' })
    t.equal(await failureFrom(t, old, server.ip, 8080), 'ECONNRESET')
    t.match(await server.record(record => record.reason === 'strict'), { error: 'strict' })
  },
)

await t.test('a server that is not who it should be is not talked to', async t => {
  const { client, server } = await meshPair(t)
  await serve(t, server, 8080, socket => socket.pipe(socket))
  const via = { kind: 'hbone', port: 15008, identities: ['spiffe://cluster.local/ns/shop/sa/other'] } as const
  client.route = ({ ip, port }) => ({ kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: {}, via }] })
  t.equal(await failureFrom(t, client, server.ip, 8080), 'ECONNRESET')
  t.match(await client.record(() => true), { reason: 'identity', error: /sa\/other.*sa\/server/ })
})

await t.test('the next endpoint is tried when the first cannot be reached', async t => {
  const { client, server } = await meshPair(t)
  await serve(t, server, 8080, socket => socket.pipe(socket))
  const via = { kind: 'hbone', port: 15008, identities: [server.identity] } as const
  client.route = () => ({
    kind: 'forward',
    endpoints: [
      { ip: '10.77.0.3', port: 8080, weight: 1_000_000, peer: {}, via },
      { ip: server.ip, port: 8080, weight: 1, peer: {}, via },
    ],
  })
  const socket = await connectFrom(t, client, '10.99.0.1', 80)
  socket.end('hello')
  t.equal((await readAll(socket)).toString(), 'hello')
})

await t.test('one that answers nothing at all is not waited for while there is another', async t => {
  const { client, server, old } = await meshPair(t)
  inPod(old, 'iptables', ['-I', 'INPUT', '-p', 'tcp', '-j', 'DROP'])
  await serve(t, server, 8080, socket => socket.pipe(socket))
  const tunnel = { kind: 'hbone', port: 15008, identities: [server.identity] } as const
  for (const via of [tunnel, { kind: 'tcp', reason: 'peer-not-enrolled' } as const]) {
    const port = via.kind === 'hbone' ? 80 : 81
    client.route = () => ({
      kind: 'forward',
      endpoints: [
        { ip: old.ip, port: 8080, weight: 1_000_000, peer: {}, via },
        { ip: server.ip, port: 8080, weight: 1, peer: {}, via: tunnel },
      ],
    })
    const startedAt = performance.now()
    const socket = await connectFrom(t, client, '10.99.0.1', port)
    socket.end('hello')
    t.equal((await readAll(socket)).toString(), 'hello')
    t.ok(performance.now() - startedAt < 9000, 'tried before the connect timeout of 10 s is over')
  }
})

await t.test('calls to the agent’s own ports are refused, from inside and from outside', async t => {
  const { client, server, old } = await meshPair(t)
  for (const [from, host, port] of [
    [client, '127.0.0.1', 15001],
    [client, '127.0.0.1', 15006],
    [old, server.ip, 15001],
    [old, server.ip, 15006],
  ] as const) {
    t.equal(await failureFrom(t, from, host, port), 'ECONNRESET', `${from.name} to ${host}:${port}`)
  }
  t.ok(client.closed.every(record => record.errorCode === 'SELF_CALL'))
})
