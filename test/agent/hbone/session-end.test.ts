import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { HpackEncoder } from '../../../agent/hbone/hpack/encoder.ts'
import {
  CONTROL_BURST,
  DEFAULT_SESSION,
  MAX_CONTINUATIONS,
  MAX_CONTROL_PAYLOAD,
  MAX_HEADER_BLOCK,
  type LimitName,
  type SessionOptions,
} from '../../../agent/hbone/limits.ts'
import { CODE, FLAG, FRAME, PREFACE, SessionError } from '../../../agent/hbone/protocol.ts'
import { ServerSession } from '../../../agent/hbone/server.ts'
import {
  sessionEnd,
  type Refusal,
  type SessionEnd,
  type SessionObserver,
  type Side,
} from '../../../agent/hbone/session-end.ts'
import { TARGET, probeClient, probeServer, type Probe } from '../../helpers/foreign-session.ts'
import { data, frame, ping, repeat, settings, uint32 } from '../../helpers/raw-peer.ts'

class Seen implements SessionObserver {
  readonly ends: [Side, SessionEnd][] = []
  readonly refusals: [Side, Refusal][] = []
  ended(side: Side, end: SessionEnd): void {
    this.ends.push([side, end])
  }
  refused(side: Side, why: Refusal): void {
    this.refusals.push([side, why])
  }
}

const CONNECT = [
  [':method', 'CONNECT'],
  [':authority', TARGET],
] as const

/** Limits that end a stream; the others end the session. */
type OfStreams = 'maxHeaderList' | 'maxConcurrentStreams'

/** What takes a server's session over each limit. */
const OVER: Record<
  Exclude<LimitName, OfStreams>,
  { code: string; options?: Partial<SessionOptions>; silent?: boolean; send?: (probe: Probe) => unknown }
> = {
  streamWindow: {
    code: 'FLOW_CONTROL_ERROR',
    options: { streamWindow: 70_000 },
    send: ({ peer }) => {
      peer.connect(1, TARGET)
      for (let piece = 0; piece < 5; piece++) peer.send(data(1, Buffer.alloc(16_384)))
    },
  },
  connectionWindow: {
    code: 'FLOW_CONTROL_ERROR',
    options: { connectionWindow: 70_000, streamWindow: 1 << 20 },
    send: ({ peer }) => {
      peer.connect(1, TARGET)
      for (let piece = 0; piece < 5; piece++) peer.send(data(1, Buffer.alloc(16_384)))
    },
  },
  maxFrame: {
    code: 'FRAME_SIZE_ERROR',
    send: ({ peer }) => peer.send(frame(0xfa, 0, 0, Buffer.alloc(DEFAULT_SESSION.maxFrame + 1))),
  },
  MAX_CONTROL_PAYLOAD: {
    code: 'FRAME_SIZE_ERROR',
    send: ({ peer }) => peer.send(frame(FRAME.goaway, 0, 0, Buffer.alloc(MAX_CONTROL_PAYLOAD + 1))),
  },
  MAX_HEADER_BLOCK: {
    code: 'ENHANCE_YOUR_CALM',
    send: ({ peer }) => {
      const half = Buffer.alloc(MAX_HEADER_BLOCK / 2 + 1)
      peer.send(frame(FRAME.headers, 0, 1, half), frame(FRAME.continuation, 0, 1, half))
    },
  },
  MAX_CONTINUATIONS: {
    code: 'ENHANCE_YOUR_CALM',
    send: ({ peer }) =>
      peer.send(
        frame(FRAME.headers, 0, 1),
        repeat(frame(FRAME.continuation, 0, 1, Buffer.of(0x82)), MAX_CONTINUATIONS),
      ),
  },
  CONTROL_BURST: {
    code: 'ENHANCE_YOUR_CALM',
    send: ({ peer }) => peer.send(repeat(frame(0xfa, 0, 0), 2 * CONTROL_BURST)),
  },
  pingTimeoutMs: { code: 'NO_ERROR', options: { pingIntervalMs: 10, pingTimeoutMs: 20 } },
  prefaceTimeoutMs: { code: 'SETTINGS_TIMEOUT', options: { prefaceTimeoutMs: 20 }, silent: true },
  // Has a test of its own: it takes a peer that does not read.
  MAX_UNREAD_ANSWERS: { code: 'ENHANCE_YOUR_CALM' },
}

for (const [limit, { code, options = {}, silent = false, send }] of Object.entries(OVER))
  if (limit !== 'MAX_UNREAD_ANSWERS')
    await t.test(`a session that went over ${limit} says so`, async t => {
      const seen = new Seen()
      const probe = await probeServer(t, {
        session: { ...options, observer: seen },
        onConnect: () => undefined,
        ...(silent ? { settings: false } : {}),
      })
      send?.(probe)
      t.match(await probe.ended, { limit })
      t.strictSame(seen.ends, [['server', { by: 'us', code, limit }]], 'once, by name')
    })

await t.test('so does one whose peer does not read', async t => {
  const seen = new Seen()
  const transport = new Duplex({ read: () => undefined, write: () => undefined })
  const session = new ServerSession(transport, { ...DEFAULT_SESSION, observer: seen }, request =>
    request.respond(503, [['x', 'y'.repeat(16_000)]]),
  )
  const ended = new Promise(resolve => session.onClosed(resolve))
  const encoder = new HpackEncoder()
  const requests = Array.from({ length: 400 }, (_, at) =>
    frame(FRAME.headers, FLAG.endHeaders, 1 + 2 * at, encoder.encode(CONNECT)),
  )
  transport.push(Buffer.concat([PREFACE, settings(), ...requests.slice(0, 200)]))
  await new Promise(setImmediate)
  transport.push(Buffer.concat(requests.slice(200)))
  await ended
  const { code } = OVER.MAX_UNREAD_ANSWERS
  t.strictSame(seen.ends, [['server', { by: 'us', code, limit: 'MAX_UNREAD_ANSWERS' }]])
})

await t.test('streams that are not served are told with why', async t => {
  const seen = new Seen()
  const { session, peer } = await probeServer(t, {
    session: { observer: seen, maxConcurrentStreams: 1, maxHeaderList: 200 },
    onConnect: () => undefined,
  })
  peer
    .headers(1, [[':method', 'GET']])
    .connect(3, TARGET, [['x', 'y'.repeat(200)]])
    .connect(5, TARGET)
    .connect(7, TARGET)
  await peer.pong()
  session.goaway()
  await peer.pong()
  const { payload } = await peer.frame(({ type, flags }) => type === FRAME.ping && flags === 0)
  peer.send(frame(FRAME.ping, FLAG.ack, 0, payload)).connect(9, TARGET)
  await peer.pong()
  t.strictSame(
    seen.refusals,
    (['malformed', 'maxHeaderList', 'maxConcurrentStreams', 'goaway'] as const).map(why => ['server', why]),
  )
})

await t.test('so are answers that are none', async t => {
  const seen = new Seen()
  const { session, peer } = await probeClient(t, { session: { observer: seen, maxHeaderList: 200 } })
  const openings = [1, 2, 3].map(() => session.connect(TARGET, []))
  await peer.frame(({ streamId }) => streamId === 5)
  peer
    .headers(1, [[':status', 'ok']])
    .headers(3, [
      [':status', '200'],
      ['x', 'y'.repeat(200)],
    ])
    .send(data(5, Buffer.from('early')))
  for (const opening of openings) await t.rejects(opening)
  t.strictSame(
    seen.refusals,
    (['malformed', 'maxHeaderList', 'malformed'] as const).map(why => ['client', why]),
  )
})

/** The end of a client's session, after something was done to it. */
async function endAfter(t: Test, what: (probe: Probe) => unknown): Promise<SessionEnd> {
  const seen = new Seen()
  const probe = await probeClient(t, { session: { observer: seen } })
  what(probe)
  await probe.ended
  t.equal(seen.ends.length, 1)
  t.equal(seen.ends[0]![0], 'client')
  return seen.ends[0]![1]
}

await t.test('an end has somebody who made it, and a code of few', async t => {
  const goaway = (code: number) => frame(FRAME.goaway, 0, 0, Buffer.concat([uint32(0), uint32(code)]))
  const ends: [what: string, make: (probe: Probe) => unknown, end: Omit<SessionEnd, 'limit'>][] = [
    ['we left', ({ session }) => session.goaway(), { by: 'us', code: 'NO_ERROR' }],
    ['we gave it up', ({ session }) => session.destroy(), { by: 'us', code: 'NO_ERROR' }],
    ['the peer left', ({ peer }) => peer.send(goaway(CODE.noError)), { by: 'peer', code: 'NO_ERROR' }],
    ['the peer hung up', ({ peer }) => peer.socket.end(), { by: 'peer', code: 'NO_ERROR' }],
    [
      'the peer found fault',
      ({ peer }) => peer.send(goaway(CODE.compressionError)),
      { by: 'peer', code: 'COMPRESSION_ERROR' },
    ],
    ['with a code nobody defined', ({ peer }) => peer.send(goaway(0xe)), { by: 'peer', code: 'other' }],
    [
      'we found fault',
      ({ peer }) => peer.send(frame(FRAME.ping, 0, 0, Buffer.alloc(3))),
      { by: 'us', code: 'FRAME_SIZE_ERROR' },
    ],
  ]
  for (const [what, make, end] of ends)
    t.strictSame(await endAfter(t, make), { ...end, limit: 'none' } satisfies SessionEnd, what)
  t.strictSame(
    sessionEnd('network', new Error('ECONNRESET'), undefined),
    { by: 'network', code: 'none', limit: 'none' },
    'the connection was lost',
  )
  t.strictSame(
    sessionEnd('network', new Error('ECONNRESET'), CODE.enhanceYourCalm),
    { by: 'peer', code: 'ENHANCE_YOUR_CALM', limit: 'none' },
    'what the peer said first counts',
  )
  t.strictSame(
    sessionEnd('us', new SessionError(CODE.protocolError, 'x'), CODE.noError),
    { by: 'us', code: 'PROTOCOL_ERROR', limit: 'none' },
    'what we found counts more than its leave',
  )
})

await t.test('a session that has ended in the middle of a frame does not read the rest', async t => {
  const { session, peer, requests, ended } = await withOneStream(t)
  // The application gives up when it is handed the bytes: the last stream of a session that is leaving.
  session.goaway()
  requests[0]!.tunnel.attach({
    data: () => requests[0]!.tunnel.reset(),
    end: () => t.fail('an end'),
    reset: () => undefined,
    drain: () => undefined,
  })
  peer.send(Buffer.concat([data(1, Buffer.alloc(100), FLAG.endStream), ping(), repeat(ping(), 3)]))
  t.equal(await ended, undefined)
  await peer.closed()
  const pongs = peer.frames.filter(({ type, flags }) => type === FRAME.ping && flags === FLAG.ack)
  t.equal(pongs.length, 1, 'only the one from before')
})

async function withOneStream(t: Test) {
  const probe = await probeServer(t, { onConnect: request => request.respond(200) })
  probe.peer.connect(1, TARGET)
  await probe.peer.pong()
  return probe
}
