/** Each limit of a session: just to it, and just over it. Windows, streams and floods have tests of their own here. */
import { once } from 'node:events'
import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { Gathered, SMALL_PIECE } from '../../agent/hbone/gathered.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import {
  DEFAULT_SESSION,
  MAX_CONTINUATIONS,
  MAX_CONTROL_PAYLOAD,
  MAX_HEADER_BLOCK,
  MAX_UNREAD_ANSWERS,
  type SessionOptions,
} from '../../agent/hbone/limits.ts'
import {
  CODE,
  FLAG,
  FRAME,
  FRAME_HEADER_BYTES,
  PREFACE,
  SETTING,
  SessionError,
} from '../../agent/hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../../agent/hbone/server.ts'
import type { HeaderList } from '../helpers/hpack.ts'
import { frame, settings, windowUpdate } from '../helpers/raw-peer.ts'
import { TARGET, inState, probeClient, probeServer, verdict } from '../helpers/foreign-session.ts'

const CONNECT: HeaderList = [
  [':method', 'CONNECT'],
  [':authority', TARGET],
]
const CALM = 'connection error ENHANCE_YOUR_CALM'
const SIZE = 'connection error FRAME_SIZE_ERROR'

await t.test('a control frame may have 16,384 bytes', async t => {
  const goaway = (bytes: number) => frame(FRAME.goaway, 0, 0, Buffer.alloc(bytes))
  const many = (count: number) =>
    settings(...Array.from({ length: count }, (): [number, number] => [0xf000, 1]))
  const perFrame = Math.floor(MAX_CONTROL_PAYLOAD / 6)
  for (const role of ['server', 'client'] as const)
    for (const [what, bytes, expected] of [
      ['SETTINGS, to the limit', many(perFrame), 'passes'],
      ['SETTINGS, over it', many(perFrame + 1), SIZE],
      ['GOAWAY, to the limit', goaway(MAX_CONTROL_PAYLOAD), role === 'server' ? 'passes' : 'closed in order'],
      ['GOAWAY, over it', goaway(MAX_CONTROL_PAYLOAD + 1), SIZE],
    ] as const) {
      const probe = await inState(t, role, 'open')
      probe.peer.send(bytes)
      t.match(await verdict(probe, probe.since), expected, `${what}, to our ${role}`)
    }
})

/** A header block of so many bytes: a CONNECT, and a value as long as it takes. */
function block(bytes: number): Buffer {
  for (let value = bytes - 60; ; value++) {
    const made = new HpackEncoder().encode([...CONNECT, ['forwarded', 'v'.repeat(value)]])
    if (made.length === bytes) return Buffer.from(made)
    if (made.length > bytes) throw new Error('no block of this length')
  }
}

await t.test('a header block may have 128 KiB, in one frame or in several', async t => {
  const half = MAX_HEADER_BLOCK / 2
  const inTwo = (whole: Buffer) => [
    frame(FRAME.headers, 0, 1, whole.subarray(0, half)),
    frame(FRAME.continuation, FLAG.endHeaders, 1, whole.subarray(half)),
  ]
  for (const [what, cut] of [
    ['in one frame', (whole: Buffer) => [frame(FRAME.headers, FLAG.endHeaders, 1, whole)]],
    ['in two', inTwo],
  ] as const)
    for (const [bytes, expected] of [
      // Read for the table's sake, and refused: as a list it is too long anyway.
      [MAX_HEADER_BLOCK, 'answered 431'],
      [MAX_HEADER_BLOCK + 1, CALM],
    ] as const) {
      const probe = await probeServer(t)
      probe.peer.send(...cut(block(bytes)))
      t.match(await verdict(probe), expected, `${bytes} bytes ${what}`)
    }
})

await t.test('a header block may come in 32 frames (CVE-2024-27316: an endless one)', async t => {
  const whole = block(200)
  const inPieces = (count: number) => {
    const frames = [frame(FRAME.headers, 0, 1, whole)]
    while (frames.length < count - 1) frames.push(frame(FRAME.continuation, 0, 1))
    return [...frames, frame(FRAME.continuation, FLAG.endHeaders, 1)]
  }
  const good = await probeServer(t)
  good.peer.send(...inPieces(MAX_CONTINUATIONS))
  t.equal(await good.peer.status(1), 200)
  for (const role of ['server', 'client'] as const) {
    const probe = await inState(t, role, role === 'server' ? 'idle' : 'asked')
    probe.peer.send(...inPieces(MAX_CONTINUATIONS + 1))
    t.equal(await verdict(probe), CALM, role)
  }
})

/** Fields of exactly so many bytes, as RFC 9113 §6.5.2 counts: name, value, and 32 for each. */
function list(bytes: number, first: HeaderList): HeaderList {
  let left = bytes
  for (const [name, value] of first) left -= name.length + value.length + 32
  const fields: [string, string][] = []
  while (left > 5000) {
    fields.push(['x', 'v'.repeat(4000)])
    left -= 4033
  }
  return [...first, ...fields, ['x', 'v'.repeat(left - 33)]]
}

await t.test('a header list may be as long as we announced', async t => {
  for (const maxHeaderList of [6000, DEFAULT_SESSION.maxHeaderList]) {
    const server = await probeServer(t, { session: { maxHeaderList } })
    server.peer.headers(1, list(maxHeaderList, CONNECT)).headers(3, list(maxHeaderList + 1, CONNECT))
    t.equal(await server.peer.status(1), 200)
    t.equal(await server.peer.status(3), 431)
    t.equal(await verdict(server, server.peer.frames.length), 'passes')
    const client = await probeClient(t, { session: { maxHeaderList } })
    const openings = [client.session.connect(TARGET, []), client.session.connect(TARGET, [])]
    await client.peer.frame(({ streamId }) => streamId === 3)
    const answer: HeaderList = [[':status', '200']]
    client.peer.headers(1, list(maxHeaderList, answer)).headers(3, list(maxHeaderList + 1, answer))
    t.equal((await openings[0]!).response.status, 200)
    t.match(await openings[1]!.catch((err: unknown) => err), { h2Code: CODE.protocolError, byPeer: false })
  }
})

await t.test('RFC 7541 §6.3 a peer may use a table of 4,096 bytes', async t => {
  for (const [size, expected] of [
    ['3fe11f', 'passes'],
    ['3fe21f', 'connection error COMPRESSION_ERROR'],
  ] as const)
    for (const role of ['server', 'client'] as const) {
      const probe = await inState(t, role, 'ended both ways')
      probe.peer.send(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.from(size, 'hex')))
      t.equal(await verdict(probe, probe.since), expected, `${size}, to our ${role}`)
    }
})

/** A session on a transport that takes what is written to it and never says so: a peer that does not read. */
function unread(
  options: Partial<SessionOptions>,
  onConnect: (request: ConnectRequest) => void = () => undefined,
): { session: ServerSession; transport: Duplex; ended: Promise<Error | undefined> } {
  const transport = new Duplex({ read: () => undefined, write: () => undefined })
  const session = new ServerSession(transport, { ...DEFAULT_SESSION, ...options }, onConnect)
  const ended = new Promise<Error | undefined>(resolve => session.onClosed(resolve))
  transport.push(Buffer.concat([PREFACE, settings()]))
  return { session, transport, ended }
}

/** What was pushed has been read once the loop has turned. */
async function turn(): Promise<void> {
  for (let times = 0; times < 5; times++) await new Promise(setImmediate)
}

await t.test('answers that nobody reads may be a mebibyte beside what the applications send', async t => {
  const sendBuffer = 1000
  const { session, transport, ended } = unread({ sendBuffer }, request => request.respond(400))
  const encoder = new HpackEncoder()
  let streamId = -1
  const refused = (count: number) => {
    const frames: Buffer[] = []
    for (let at = 0; at < count; at++)
      frames.push(frame(FRAME.headers, FLAG.endHeaders, (streamId += 2), encoder.encode(CONNECT)))
    return Buffer.concat(frames)
  }
  // Each is answered by HEADERS of one byte and a RST_STREAM; our own SETTINGS and the like are among the 1,000.
  const answer = FRAME_HEADER_BYTES + 1 + FRAME_HEADER_BYTES + 4
  const most = Math.floor((2 * sendBuffer + MAX_UNREAD_ANSWERS - 1000) / answer)
  for (let sent = 0; sent < most; sent += 1000) {
    transport.push(refused(Math.min(1000, most - sent)))
    await turn()
  }
  t.notOk(session.isClosed, `${most} answers wait`)
  transport.push(refused(100))
  t.match(await ended, { h2Code: CODE.enhanceYourCalm, message: /does not read the answers/ })
})

await t.test('applications’ bytes wait for the transport above the send buffer', async t => {
  const { sendFrame } = DEFAULT_SESSION
  for (const sendBuffer of [100_000, 1_000_000]) {
    const requests: ConnectRequest[] = []
    const { session, transport } = unread({ sendBuffer }, request => requests.push(request))
    t.teardown(() => session.destroy())
    const connect = new HpackEncoder().encode(CONNECT)
    transport.push(
      Buffer.concat([
        settings([SETTING.initialWindowSize, 0x7fff_ffff]),
        windowUpdate(0, 0x7000_0000),
        frame(FRAME.headers, FLAG.endHeaders, 1, connect),
      ]),
    )
    await turn()
    const [request] = requests
    request!.respond(200)
    const { tunnel } = request!
    let taken = 0
    while (tunnel.write(Buffer.alloc(10_000)) && taken < 10_000_000) taken += 10_000
    t.ok(taken >= sendBuffer - 20_000, `${taken} bytes were taken`)
    t.ok(taken <= sendBuffer + sendFrame, 'and no more')
  }
})

await t.test('one whose last words do not leave is let go all the same', async t => {
  const { session, transport } = unread({})
  const alive = setTimeout(() => t.fail('it is held'), 5000) // the session's own timer holds no process
  t.teardown(() => clearTimeout(alive))
  session.fail(new SessionError(CODE.internalError, 'over'))
  t.notOk(transport.destroyed, 'they may leave yet')
  await once(transport, 'close')
})

await t.test('a silent peer is asked, one that answers is kept, and one that does not is let go', async t => {
  const times = { pingIntervalMs: 40, pingTimeoutMs: 80 }
  for (const role of ['server', 'client'] as const) {
    const probe = await silent(t, role, times)
    const startedAt = performance.now()
    const isAsked = ({ type, flags }: { type: number; flags: number }) => type === FRAME.ping && flags === 0
    let asked = 0
    while (asked < 4) {
      const seen = ++asked
      const { payload } = await probe.peer.frame(
        each => isAsked(each) && probe.peer.frames.filter(isAsked).length >= seen,
      )
      probe.peer.send(frame(FRAME.ping, FLAG.ack, 0, payload))
    }
    t.notOk(probe.session.isClosed, `our ${role} keeps one that answers`)
    t.ok(performance.now() - startedAt > 2 * times.pingIntervalMs, 'it is not asked all the time')
    const silentAt = performance.now()
    t.match(await probe.ended, { message: /peer silent for \d+ ms, PING unanswered/ })
    const ms = performance.now() - silentAt
    t.ok(ms >= times.pingTimeoutMs, `our ${role} waited ${Math.round(ms)} ms`)
  }
})

function silent(t: Test, role: 'server' | 'client', session: Partial<SessionOptions>) {
  return role === 'server' ? probeServer(t, { session }) : probeClient(t, { session })
}

await t.test('a GOAWAY of ours says no more than 256 bytes', async t => {
  const { session, peer } = await probeServer(t)
  await peer.pong()
  session.fail(new SessionError(CODE.internalError, 'x'.repeat(10_000)))
  const { payload } = await peer.frame(({ type }) => type === FRAME.goaway)
  t.equal(payload.length, 8 + 256)
  t.ok(payload.length + FRAME_HEADER_BYTES < MAX_CONTROL_PAYLOAD)
})

await t.test('pieces that wait are joined below 8 KiB, and kept by themselves from there on', t => {
  const gathered = new Gathered()
  const small = Buffer.alloc(SMALL_PIECE - 1, 1)
  const large = Buffer.alloc(SMALL_PIECE, 2)
  for (const piece of [small, small.subarray(0, 1), large, small.subarray(0, 10)]) gathered.push(piece)
  const pieces = gathered.take()
  t.strictSame(
    pieces.map(piece => [piece.length, piece[0]]),
    [
      [SMALL_PIECE, 1],
      [SMALL_PIECE, 2],
      [10, 1],
    ],
  )
  t.not(pieces[1], large, 'a copy: what it was cut from is used again')
  t.ok(gathered.isEmpty)
  t.end()
})
