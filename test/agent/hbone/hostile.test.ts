import { once } from 'node:events'
import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { ClientSession } from '../../../agent/hbone/client.ts'
import { DEFAULT_SESSION, type SessionOptions } from '../../../agent/hbone/limits.ts'
import { HbonePool } from '../../../agent/hbone/pool.ts'
import { CODE, FLAG, FRAME, PREFACE, SETTING } from '../../../agent/hbone/protocol.ts'
import { HpackEncoder } from '../../../agent/hbone/hpack/encoder.ts'
import { ServerSession, type ConnectRequest } from '../../../agent/hbone/server.ts'
import { becomes } from '../../helpers/becomes.ts'
import { RawPeer, data, frame, repeat, rst, settings, windowUpdate } from '../../helpers/raw-peer.ts'
import { socketPair } from '../../helpers/tcp.ts'
import { Receiver } from '../../helpers/tunnel.ts'

/** A server session and a client that sends what it likes. */
async function hostileClient(
  t: Test,
  onConnect: (request: ConnectRequest) => void,
  options: Partial<SessionOptions> = {},
): Promise<{ peer: RawPeer; server: ServerSession; ended: Promise<Error | undefined> }> {
  const [near, far] = await socketPair(t)
  near.on('error', () => undefined)
  const server = new ServerSession(far, { ...DEFAULT_SESSION, ...options }, onConnect)
  t.teardown(() => server.destroy())
  // Not the GOAWAY that the peer sees: closed with bytes unread, the kernel resets the connection and it may be lost.
  const ended = new Promise<Error | undefined>(resolve => server.onClosed(resolve))
  return { peer: new RawPeer(near).hello(), server, ended }
}

/** A client session and a server that sends what it likes. */
async function hostileServer(t: Test, ...pairs: [id: number, value: number][]) {
  const [near, far] = await socketPair(t)
  far.on('error', () => undefined)
  const client = new ClientSession(near, DEFAULT_SESSION)
  t.teardown(() => client.destroy())
  const peer = new RawPeer(far, { isServer: true }).send(settings(...pairs))
  await client.ready()
  return { client, peer }
}

await t.test('bytes sent to a tunnel that is refused do not wear the connection’s window down', async t => {
  const { peer, server } = await hostileClient(t, request => setImmediate(() => request.respond(503)), {
    streamWindow: 65_535,
    connectionWindow: 262_140,
  })
  for (let streamId = 1; streamId < 40; streamId += 2) {
    peer.connect(streamId, '10.0.0.1:80').send(data(streamId, Buffer.alloc(60_000)))
    t.equal(await peer.status(streamId), 503)
  }
  t.notOk(server.isClosed)
})

await t.test('a peer that asks and never reads the answers loses its session', async t => {
  // Takes everything that is written to it and never says so: a receive window of 0.
  const transport = new Duplex({ read: () => undefined, write: () => undefined })
  const server = new ServerSession(transport, { ...DEFAULT_SESSION, sendBuffer: 1000 }, request =>
    request.respond(400),
  )
  const encoder = new HpackEncoder()
  const ended = new Promise<Error | undefined>(resolve => server.onClosed(resolve))
  transport.push(Buffer.concat([PREFACE, settings()]))
  for (let streamId = 1; streamId < 100_000 && !server.isClosed; streamId += 2) {
    const block = encoder.encode([
      [':method', 'CONNECT'],
      [':authority', 'x'.repeat(300)],
    ])
    transport.push(frame(FRAME.headers, FLAG.endHeaders, streamId, block))
    if (streamId % 1001 === 0) await new Promise(setImmediate)
  }
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /does not read|too many control frames/ })
})

await t.test('refused requests without end are too many', async t => {
  const { peer, ended } = await hostileClient(t, request => request.respond(400))
  const encoder = new HpackEncoder()
  const fields = [
    [':method', 'CONNECT'],
    [':authority', 'x'],
  ] as const
  const frames: Buffer[] = []
  for (let streamId = 1; streamId < 400_000; streamId += 2)
    frames.push(frame(FRAME.headers, FLAG.endHeaders, streamId, encoder.encode(fields)))
  peer.send(Buffer.concat(frames))
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /refused request/ })
})

await t.test('streams opened and reset without end are too many, an honest burst of them is not', async t => {
  const tunnels: ConnectRequest[] = []
  const { peer, server, ended } = await hostileClient(t, request => tunnels.push(request))
  const encoder = new HpackEncoder()
  const streams = (from: number, count: number) => {
    const frames: Buffer[] = []
    for (let streamId = from; streamId < from + 2 * count; streamId += 2) {
      const block = encoder.encode([
        [':method', 'CONNECT'],
        [':authority', '10.0.0.1:80'],
      ])
      frames.push(frame(FRAME.headers, FLAG.endHeaders, streamId, block), rst(streamId, CODE.cancel))
    }
    return Buffer.concat(frames)
  }
  peer.send(streams(1, 10_000))
  await peer.pong()
  t.notOk(server.isClosed)
  t.equal(tunnels.length, 10_000)
  t.equal(server.openStreams, 0)
  peer.send(streams(20_001, 300_000))
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /RST_STREAM/ })
})

await t.test('headers for streams that are closed are too many at some point', async t => {
  const { peer, ended } = await hostileClient(t, request => request.respond(400))
  peer.connect(1, 'x')
  await peer.status(1)
  peer.send(repeat(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0x82)), 70_000))
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /HEADERS on a closed stream/ })
})

await t.test('a window opened byte by byte is too many frames at some point', async t => {
  const { peer, ended } = await hostileClient(t, request => {
    take(request)
    request.respond(200)
    request.tunnel.write(Buffer.alloc(1_000_000))
  })
  peer.connect(1, '10.0.0.1:80')
  await peer.status(1)
  peer.send(repeat(windowUpdate(1, 1), 70_000))
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /small WINDOW_UPDATE/ })
})

await t.test('a stream’s window opened too far resets that stream and no other', async t => {
  const { peer, server } = await hostileClient(t, request => {
    take(request)
    request.respond(200)
  })
  peer.connect(1, '10.0.0.1:80').connect(3, '10.0.0.1:80')
  peer.send(windowUpdate(1, 0x7fff_ffff), windowUpdate(3, 0))
  t.equal(await peer.resetCode(1), CODE.flowControlError)
  t.equal(await peer.resetCode(3), CODE.protocolError)
  t.notOk(server.isClosed)
})

await t.test('bytes over the windows end the session', async t => {
  const small = { streamWindow: 65_535, connectionWindow: 100_000 }
  for (const [streams, text] of [
    [1, /stream 1 overran its window/],
    [2, /connection window overrun/],
  ] as const) {
    const { peer, ended } = await hostileClient(t, take, small)
    for (let at = 0; at < streams; at++) peer.connect(1 + 2 * at, '10.0.0.1:80')
    for (let piece = 0; piece < 4; piece++)
      for (let at = 0; at < streams; at++) peer.send(data(1 + 2 * at, Buffer.alloc(16_384)))
    if (streams === 1) peer.send(data(1, Buffer.alloc(16_384)))
    t.match(await ended, { h2Code: CODE.flowControlError, message: text })
  }
})

await t.test('bytes in tiny frames cost no more than bytes, however slow the application is', async t => {
  for (const phase of ['before the answer', 'after it'] as const) {
    let request: ConnectRequest | undefined
    const { peer, server } = await hostileClient(t, each => (request = each))
    peer.connect(1, '10.0.0.1:80')
    peer.send(repeat(data(1, Buffer.of(7)), 100_000))
    await peer.pong()
    if (phase === 'after it') {
      const slow = new Receiver(request!.tunnel, { credit: false })
      peer.send(repeat(data(1, Buffer.of(7)), 200_000))
      await peer.pong()
      t.ok(slow.chunks.length < 100_000, `${slow.chunks.length} pieces wait for the application`)
      for (const chunk of slow.chunks) request!.tunnel.consumed(chunk.length)
      peer.send(data(1, Buffer.alloc(0), FLAG.endStream))
      t.equal(await slow.ended, 'end')
      t.equal(slow.bytes, 300_000, 'and all of them arrive')
    } else {
      const gets = new Receiver(request!.tunnel)
      t.ok(gets.chunks.length < 100, `${gets.chunks.length} pieces were kept`)
      t.equal(gets.bytes, 100_000)
    }
    t.notOk(server.isClosed)
  }
})

await t.test(
  'a header block that comes byte by byte is read, frames that nobody knows are passed over',
  async t => {
    const { peer } = await hostileClient(t, request => request.respond(503))
    peer.send(frame(0xbb, 0, 0, Buffer.alloc(1_000_000)))
    const block = new HpackEncoder().encode([
      [':method', 'CONNECT'],
      [':authority', '10.0.0.1:80'],
      ['x', 'y'.repeat(5000)],
    ])
    for (const byte of frame(FRAME.headers, FLAG.endHeaders, 1, block)) {
      peer.send(Buffer.of(byte))
      if (byte % 7 === 0) await new Promise(setImmediate)
    }
    t.equal(await peer.status(1), 503)
  },
)

await t.test('a header list that is too long is refused, and the session lives', async t => {
  const { peer, server } = await hostileClient(t, take)
  // One entry of 4000 bytes, named 20,000 times by its index: 80 MB of headers.
  const entry = Buffer.concat([Buffer.from('40017a7fa11e', 'hex'), Buffer.alloc(4000, 0x61)])
  peer.send(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.concat([entry, Buffer.alloc(20_000, 0xbe)])))
  t.equal(await peer.status(1), 431)
  peer.headers(3, [[':method', 'CONNECT'], [':authority', '10.0.0.1:80'], ...manyHeaders()])
  t.equal(await peer.status(3), 431)
  t.notOk(server.isClosed)
})

await t.test('what is no CONNECT to an authority is a bad request, and the session lives', async t => {
  const { peer, server } = await hostileClient(t, () => t.fail('nothing of this is a request'))
  const method = [':method', 'CONNECT'] as const
  const authority = [':authority', '10.0.0.1:80'] as const
  const lists = [
    [method],
    [authority],
    [[':method', 'POST'] as const, authority],
    [[':method', 'connect'] as const, authority],
    [method, authority, [':path', '/'] as const],
    [method, authority, [':scheme', 'https'] as const],
    [method, authority, [':protocol', 'websocket'] as const, [':path', '/'] as const],
    [method, authority, authority],
    [method, ['x', 'y'] as const, authority],
    [method, authority, ['X-Upper', 'y'] as const],
    [method, authority, ['x', 'a\nb'] as const],
    [method, authority, ['x', ' padded'] as const],
    [method, [':authority', ''] as const],
    [],
  ]
  for (const [at, list] of lists.entries()) {
    peer.headers(1 + 2 * at, list)
    t.equal(await peer.status(1 + 2 * at), 400, JSON.stringify(list))
  }
  t.notOk(server.isClosed)
})

await t.test('streams over the limit are refused, those below go on', async t => {
  const { peer, server } = await hostileClient(
    t,
    request => {
      take(request)
      request.respond(200)
    },
    { maxConcurrentStreams: 3 },
  )
  for (let streamId = 1; streamId < 20; streamId += 2) peer.connect(streamId, '10.0.0.1:80')
  t.equal(await peer.status(5), 200)
  t.equal(await peer.resetCode(7), CODE.refusedStream)
  t.equal(server.openStreams, 3)
  peer.send(rst(1, CODE.cancel)).connect(21, '10.0.0.1:80')
  t.equal(await peer.status(21), 200)
})

await t.test('what a hostile server answers ends in an error that names it', async t => {
  const cases: [what: string, answer: (peer: RawPeer) => void, code: number | undefined, text: RegExp][] = [
    ['no status', peer => peer.headers(1, [['x', 'y']]), undefined, /PROTOCOL_ERROR/],
    ['a status that is none', peer => peer.headers(1, [[':status', '9']]), undefined, /PROTOCOL_ERROR/],
    [
      'a status twice',
      peer =>
        peer.headers(1, [
          [':status', '200'],
          [':status', '200'],
        ]),
      undefined,
      /PROTOCOL_ERROR/,
    ],
    [
      'too long a list',
      peer => peer.headers(1, [[':status', '200'], ...manyHeaders()]),
      undefined,
      /PROTOCOL_ERROR/,
    ],
    [
      'another’s stream',
      peer => peer.headers(3, [[':status', '200']]),
      CODE.protocolError,
      /HEADERS on idle stream 3/,
    ],
    [
      'a stream of its own',
      peer => peer.headers(2, [[':status', '200']]),
      CODE.protocolError,
      /idle stream 2/,
    ],
    [
      'a promise',
      peer => peer.send(frame(FRAME.pushPromise, 0, 1, Buffer.alloc(8))),
      CODE.protocolError,
      /PUSH_PROMISE/,
    ],
    ['an end', peer => peer.socket.end(), undefined, /peer closed the connection/],
    ['a reset', peer => peer.send(rst(1, 0x7777)), undefined, /reset by peer: 0x7777/],
    [
      'answers that are none',
      peer =>
        peer.send(repeat(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.from('0803313030', 'hex')), 70_000)),
      CODE.enhanceYourCalm,
      /informational/,
    ],
    [
      'a GOAWAY with a message for the log',
      peer =>
        peer.send(frame(FRAME.goaway, 0, 0, Buffer.concat([Buffer.alloc(8), Buffer.from('bye\n\u001b[2J')]))),
      undefined,
      /\(bye\?\?\[2J\)/,
    ],
  ]
  for (const [what, answer, code, text] of cases) {
    const { client, peer } = await hostileServer(t)
    const opening = client.connect('10.0.0.1:80', [])
    await peer.frame(({ type }) => type === FRAME.headers)
    answer(peer)
    t.match(await opening.catch((err: unknown) => err), { message: text }, what)
    if (code !== undefined) t.equal((await peer.goaway()).code, code, what)
  }
})

await t.test('a peer that allows no streams is not asked for ever more sessions', async t => {
  const pool = new HbonePool({ maxStreams: 100, idleMs: 60_000, impatienceMs: 200 })
  t.teardown(() => pool.destroy())
  const peers: RawPeer[] = []
  const open = async () => {
    const { client, peer } = await hostileServer(t, [SETTING.maxConcurrentStreams, 0])
    peers.push(peer)
    return client
  }
  const never = new AbortController().signal
  const first = pool.acquire('peer', open, never)
  await becomes(() => pool.sessionCount > 0)
  const more = Array.from({ length: 20 }, () => pool.acquire('peer', open, never))
  // Longer than anyone's patience: whoever wanted an attempt of his own has had the time.
  await once(AbortSignal.timeout(500), 'abort')
  t.equal(pool.sessionCount, 1)
  peers[0]!.send(settings([SETTING.maxConcurrentStreams, 50]))
  t.equal((await Promise.all([first, ...more])).length, 21, 'all are served once it allows some')
  t.equal(pool.sessionCount, 1)
})

await t.test('a place that was reserved and not used goes to who waits', async t => {
  const pool = new HbonePool({ maxStreams: 1, idleMs: 20, impatienceMs: 60_000 })
  const { client } = await hostileServer(t)
  const never = new AbortController().signal
  const session = await pool.acquire('peer', () => Promise.resolve(client), never)
  const waiting = pool.acquire('peer', () => Promise.reject(new Error('no second one')), never)
  waiting.catch(() => undefined)
  session.reserved--
  const gaveUp = AbortSignal.abort(new Error('gave up'))
  await t.rejects(session.connect('10.0.0.1:80', [], gaveUp), { message: 'gave up' })
  const ended = new Promise(resolve => client.onClosed(resolve))
  await waiting.then(
    next => next.reserved--,
    () => undefined,
  )
  await t.rejects(session.connect('10.0.0.1:80', [], gaveUp))
  t.equal(await ended, undefined, 'and a session that nobody uses ends')
})

function manyHeaders(): [string, string][] {
  return Array.from({ length: 100 }, (_, at) => [`x-${at}`, 'y'.repeat(900)])
}

/** Takes the tunnel's bytes and keeps them. */
function take({ tunnel }: ConnectRequest): Receiver {
  return new Receiver(tunnel, { credit: false })
}
