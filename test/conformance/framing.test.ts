import t from 'tap'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { FLAG, FRAME, PREFACE, SETTING } from '../../agent/hbone/protocol.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import { data, frame, ping, rst, settings, uint32, windowUpdate } from '../helpers/raw-peer.ts'
import {
  TARGET,
  accept,
  inState,
  probeClient,
  probeServer,
  verdict,
  type State,
} from '../helpers/foreign-session.ts'

const PROTOCOL = 'connection error PROTOCOL_ERROR'
const SIZE = 'connection error FRAME_SIZE_ERROR'
const STREAM_SIZE = 'stream error FRAME_SIZE_ERROR'
const PASSES = 'passes'

const bytes = (count: number) => Buffer.alloc(count)
const head = (length: number, type: number, flags: number, streamId: number) =>
  Buffer.concat([Buffer.of(length >> 16, length >> 8, length, type, flags), uint32(streamId)])
/** §4.1: the reserved bit, which the sender must not set and the receiver must not look at. */
const RESERVED = 0x8000_0000
const padded = (pad: number, ...payload: number[]) => Buffer.of(pad, ...payload)

await t.test('§3.4 the client’s preface: the 24 octets, then SETTINGS, and nothing before', async t => {
  const cases: [what: string, sent: Buffer[], expected: string][] = [
    ['preface and SETTINGS in one piece', [Buffer.concat([PREFACE, settings()])], PASSES],
    ['preface octet by octet', [...[...PREFACE].map(octet => Buffer.of(octet)), settings()], PASSES],
    ['preface and SETTINGS, not empty', [PREFACE, settings([SETTING.enablePush, 0])], PASSES],
    ['HTTP/1.1', [Buffer.from('GET / HTTP/1.1\r\n\r\n')], PROTOCOL],
    ['a last octet that is wrong', [PREFACE.subarray(0, 23), Buffer.from('x')], PROTOCOL],
    ['a first octet that is wrong', [Buffer.from('p')], PROTOCOL],
    ['SETTINGS and no preface', [settings()], PROTOCOL],
    ['HEADERS first', [PREFACE, connectFrame()], PROTOCOL],
    ['DATA first', [PREFACE, data(1, bytes(1))], PROTOCOL],
    ['WINDOW_UPDATE first', [PREFACE, windowUpdate(0, 5000)], PROTOCOL],
    ['RST_STREAM first', [PREFACE, rst(1, 0)], PROTOCOL],
  ]
  for (const [what, sent, expected] of cases) {
    const probe = await probeServer(t, { settings: false })
    probe.peer.send(...sent)
    t.equal(await verdict(probe), expected, what)
  }
})

await t.test('§3.4 the first frame of either side is SETTINGS, and no acknowledgement', async t => {
  const first: [what: string, bytes: Buffer][] = [
    ['PING', ping()],
    ['PRIORITY', frame(FRAME.priority, 0, 1, Buffer.alloc(5))],
    ['GOAWAY', frame(FRAME.goaway, 0, 0, Buffer.alloc(8))],
    ['an unknown frame', frame(0xfa, 0, 0)],
    ['an acknowledgement', frame(FRAME.settings, FLAG.ack, 0)],
  ]
  for (const [what, bytes] of first) {
    const server = await probeServer(t, { settings: false })
    server.peer.send(PREFACE, bytes, settings())
    t.equal(await verdict(server), PROTOCOL, `${what}, to our server`)
    const client = await probeClient(t, { settings: false })
    client.session.connect(TARGET, []).catch(() => undefined)
    client.peer.send(bytes, settings())
    t.equal(await verdict(client), PROTOCOL, `${what}, to our client`)
  }
  const client = await probeClient(t, { settings: false })
  client.session.connect(TARGET, []).catch(() => undefined)
  client.peer.headers(1, [[':status', '200']]).send(settings())
  t.equal(await verdict(client), PROTOCOL, 'HEADERS, to our client')
})

await t.test('§3.4 our client begins with the preface and SETTINGS, our server with SETTINGS', async t => {
  const asClient = await probeClient(t, { settings: false })
  await asClient.peer.frame(() => true) // the helper has passed over the 24 octets of the preface
  const asServer = await probeServer(t, { settings: false })
  await asServer.peer.frame(() => true)
  for (const { peer } of [asClient, asServer])
    t.match(peer.frames[0], { type: FRAME.settings, flags: 0, streamId: 0 })
})

await t.test('§3.4 a request is not refused for having come before the answer to its SETTINGS', async t => {
  const probe = await probeServer(t, { settings: false, onConnect: accept })
  probe.peer.send(Buffer.concat([PREFACE, settings(), connectFrame()]))
  t.equal(await probe.peer.status(1), 200)
})

/** Frames as a peer of either role may send them: what, the frame, the verdict, and the state of stream 1 before. */
const CASES: [what: string, sent: Buffer, expected: string, state?: State][] = [
  ['§4.1 the reserved bit is not looked at', frame(FRAME.data, 0, 1 + RESERVED, bytes(5)), PASSES, 'open'],
  ['§4.1 flags that nobody defined are not looked at', frame(FRAME.ping, 0xfe, 0, bytes(8)), PASSES],
  ['§4.1 flags of another type are not looked at', frame(FRAME.rstStream, 0xff, 1, bytes(4)), PASSES, 'open'],
  ['§4.2 a frame as long as we announced', data(1, bytes(DEFAULT_SESSION.maxFrame)), PASSES, 'open'],
  ['§4.2 DATA over it', head(DEFAULT_SESSION.maxFrame + 1, FRAME.data, 0, 1), SIZE, 'open'],
  ['§4.2 HEADERS over it', head(DEFAULT_SESSION.maxFrame + 1, FRAME.headers, 0, 1), SIZE],
  ['§4.2 an unknown frame over it', head(DEFAULT_SESSION.maxFrame + 1, 0xfa, 0, 0), SIZE],
  ['§4.2 SETTINGS over it', head(DEFAULT_SESSION.maxFrame + 1, FRAME.settings, 0, 0), SIZE],
  ['§4.2 a frame of 2^24-1', head(0xff_ffff, FRAME.data, 0, 1), SIZE, 'open'],
  ['§5.5 an unknown frame on the connection', frame(0xfa, 0, 0, bytes(3)), PASSES],
  ['§5.5 an unknown frame on a stream that never was', frame(0xff, 0xff, 99, bytes(70_000)), PASSES],
  ['§5.5 an unknown frame that is empty', frame(0x10, 0, 0), PASSES],
  [
    '§5.5 an unknown frame between HEADERS and CONTINUATION',
    Buffer.concat([frame(FRAME.headers, 0, 1), frame(0xfa, 0, 1, bytes(3))]),
    PROTOCOL,
  ],
  ['§6.1 DATA on the connection', data(0, bytes(1)), PROTOCOL],
  ['§6.1 DATA that is empty', data(1, bytes(0)), PASSES, 'open'],
  ['§6.1 DATA, padded', frame(FRAME.data, FLAG.padded, 1, padded(2, 7, 0, 0)), PASSES, 'open'],
  ['§6.1 DATA of padding alone', frame(FRAME.data, FLAG.padded, 1, padded(3, 0, 0, 0)), PASSES, 'open'],
  ['§6.1 DATA padded by nothing', frame(FRAME.data, FLAG.padded, 1, padded(0)), PASSES, 'open'],
  ['§6.1 DATA padded by 255', frame(FRAME.data, FLAG.padded, 1, padded(255, ...bytes(256))), PASSES, 'open'],
  [
    '§6.1 DATA with padding as long as it',
    frame(FRAME.data, FLAG.padded, 1, padded(3, 0, 0)),
    PROTOCOL,
    'open',
  ],
  [
    '§6.1 DATA with padding longer than it',
    frame(FRAME.data, FLAG.padded, 1, padded(255, 0)),
    PROTOCOL,
    'open',
  ],
  ['§6.1 DATA without its pad length', frame(FRAME.data, FLAG.padded, 1), SIZE, 'open'],
  ['§6.2 HEADERS on the connection', frame(FRAME.headers, FLAG.endHeaders, 0, Buffer.of(0x82)), PROTOCOL],
  [
    '§6.2 HEADERS with padding longer than it',
    frame(FRAME.headers, FLAG.endHeaders | FLAG.padded, 1, padded(9, 0x82)),
    PROTOCOL,
  ],
  ['§6.2 HEADERS without its pad length', frame(FRAME.headers, FLAG.endHeaders | FLAG.padded, 1), SIZE],
  [
    '§6.2 HEADERS too short for its priority',
    frame(FRAME.headers, FLAG.endHeaders | FLAG.priority, 1, bytes(4)),
    SIZE,
  ],
  [
    '§6.2 HEADERS too short for its pad length and priority',
    frame(FRAME.headers, FLAG.endHeaders | FLAG.padded | FLAG.priority, 1, bytes(5)),
    SIZE,
  ],
  ['§6.3 PRIORITY on the connection', frame(FRAME.priority, 0, 0, bytes(5)), PROTOCOL],
  ['§6.3 PRIORITY of a stream that never was', frame(FRAME.priority, 0, 77, bytes(5)), PASSES],
  ['§6.3 PRIORITY of 4 octets', frame(FRAME.priority, 0, 1, bytes(4)), STREAM_SIZE, 'open'],
  ['§6.3 PRIORITY of 6 octets', frame(FRAME.priority, 0, 1, bytes(6)), STREAM_SIZE, 'open'],
  ['§6.3 PRIORITY of no octets, of an ended stream', frame(FRAME.priority, 0, 1), PASSES, 'ended both ways'],
  // A stream that never was cannot be reset (§6.4); §5.4.1 lets it be an error of the connection.
  ['§6.3 PRIORITY of 4 octets, of a stream that never was', frame(FRAME.priority, 0, 77, bytes(4)), SIZE],
  [
    '§6.3 PRIORITY of a stream on itself',
    frame(FRAME.priority, 0, 1, Buffer.of(0, 0, 0, 1, 9)),
    PASSES,
    'open',
  ],
  ['§6.4 RST_STREAM on the connection', rst(0, 0), PROTOCOL],
  ['§6.4 RST_STREAM of 3 octets', frame(FRAME.rstStream, 0, 1, bytes(3)), SIZE, 'open'],
  ['§6.4 RST_STREAM of 5 octets', frame(FRAME.rstStream, 0, 1, bytes(5)), SIZE, 'open'],
  ['§6.4 RST_STREAM with a code that nobody defined', rst(1, 0xffff_ffff), PASSES, 'open'],
  ['§6.5 SETTINGS on a stream', frame(FRAME.settings, 0, 1), PROTOCOL, 'open'],
  ['§6.5 SETTINGS of 7 octets', frame(FRAME.settings, 0, 0, bytes(7)), SIZE],
  ['§6.5 an acknowledgement that says something', frame(FRAME.settings, FLAG.ack, 0, bytes(6)), SIZE],
  ['§6.5 an acknowledgement nobody waits for', frame(FRAME.settings, FLAG.ack, 0), PASSES],
  ['§6.7 PING on a stream', frame(FRAME.ping, 0, 1, bytes(8)), PROTOCOL, 'open'],
  ['§6.7 PING of 7 octets', frame(FRAME.ping, 0, 0, bytes(7)), SIZE],
  ['§6.7 PING of 9 octets', frame(FRAME.ping, 0, 0, bytes(9)), SIZE],
  ['§6.7 PING of no octets', frame(FRAME.ping, 0, 0), SIZE],
  ['§6.7 an answer to no PING', frame(FRAME.ping, FLAG.ack, 0, bytes(8)), PASSES],
  ['§6.8 GOAWAY on a stream', frame(FRAME.goaway, 0, 1, bytes(8)), PROTOCOL, 'open'],
  ['§6.8 GOAWAY of 7 octets', frame(FRAME.goaway, 0, 0, bytes(7)), SIZE, 'open'],
  ['§6.9 WINDOW_UPDATE of 3 octets', frame(FRAME.windowUpdate, 0, 0, bytes(3)), SIZE],
  ['§6.9 WINDOW_UPDATE of 5 octets', frame(FRAME.windowUpdate, 0, 1, bytes(5)), SIZE, 'open'],
  ['§6.9 WINDOW_UPDATE with the reserved bit', windowUpdate(0, 5000 + RESERVED), PASSES],
  ['§6.10 CONTINUATION on the connection', frame(FRAME.continuation, 0, 0), PROTOCOL],
  [
    '§6.10 CONTINUATION after the end of the headers',
    Buffer.concat([frame(FRAME.rstStream, 0, 1, bytes(4)), frame(FRAME.continuation, FLAG.endHeaders, 1)]),
    PROTOCOL,
    'open',
  ],
  [
    '§6.10 CONTINUATION of another stream',
    Buffer.concat([frame(FRAME.headers, 0, 1), frame(FRAME.continuation, FLAG.endHeaders, 3)]),
    PROTOCOL,
  ],
  ...(
    ['data', 'headers', 'priority', 'rstStream', 'settings', 'ping', 'goaway', 'windowUpdate'] as const
  ).map((type): [string, Buffer, string] => [
    `§6.10 ${type} between HEADERS and CONTINUATION`,
    Buffer.concat([frame(FRAME.headers, 0, 1), frame(FRAME[type], 0, 1, bytes(8))]),
    PROTOCOL,
  ]),
]

for (const role of ['server', 'client'] as const)
  await t.test(`§4–§6 frames sent to our ${role}`, async t => {
    for (const [what, sent, expected, state = 'idle'] of CASES) {
      const probe = await inState(t, role, state)
      probe.peer.send(sent)
      t.equal(await verdict(probe, probe.since), expected, what)
    }
  })

await t.test('§4.3, §6.2, §6.10 a header block is one, however it is cut, padded and weighed', async t => {
  const block = Buffer.from(
    new HpackEncoder().encode([
      [':method', 'CONNECT'],
      [':authority', TARGET],
      ['x', 'y'],
    ]),
  )
  const piece = (from: number, to?: number) => block.subarray(from, to)
  const weight = Buffer.of(0x80, 0, 0, 0, 255)
  const both = FLAG.padded | FLAG.priority | FLAG.endHeaders
  const forms: [what: string, sent: Buffer[]][] = [
    ['whole', [frame(FRAME.headers, FLAG.endHeaders, 1, block)]],
    [
      'cut in the middle',
      [frame(FRAME.headers, 0, 1, piece(0, 5)), frame(FRAME.continuation, FLAG.endHeaders, 1, piece(5))],
    ],
    [
      'octet by octet',
      [
        frame(FRAME.headers, 0, 1, piece(0, 1)),
        ...[...piece(1)].map(octet => frame(FRAME.continuation, 0, 1, Buffer.of(octet))),
        frame(FRAME.continuation, FLAG.endHeaders, 1),
      ],
    ],
    [
      'all of it in CONTINUATION',
      [frame(FRAME.headers, 0, 1), frame(FRAME.continuation, FLAG.endHeaders, 1, block)],
    ],
    [
      'padded and weighed',
      [frame(FRAME.headers, both, 1, Buffer.concat([padded(4), weight, block, bytes(4)]))],
    ],
    ['weighed', [frame(FRAME.headers, both & ~FLAG.padded, 1, Buffer.concat([weight, block]))]],
    [
      'with the end of the stream on HEADERS, which CONTINUATION cannot say',
      [
        frame(FRAME.headers, FLAG.endStream, 1, piece(0, 9)),
        frame(FRAME.continuation, FLAG.endHeaders | FLAG.endStream, 1, piece(9)),
      ],
    ],
  ]
  for (const [what, sent] of forms) {
    const { peer, requests } = await probeServer(t)
    peer.send(...sent)
    t.equal(await peer.status(1), 200, what)
    t.strictSame([requests[0]!.authority, requests[0]!.headers.get('x')], [TARGET, 'y'], what)
  }
})

await t.test('§6.7 PING is answered with its own eight octets, before what was asked for later', async t => {
  for (const role of ['server', 'client'] as const) {
    const { peer } = await inState(t, role, 'open')
    const wanted = Buffer.from('8 octets')
    peer.send(frame(FRAME.ping, 0, 0, wanted), ping())
    const answer = await peer.frame(({ type, flags, payload }) => {
      return type === FRAME.ping && flags === FLAG.ack && payload.equals(wanted)
    })
    t.equal(answer.streamId, 0)
  }
})

await t.test('§5.4.1 a GOAWAY names the last stream that was looked at, and the connection ends', async t => {
  const { peer } = await probeServer(t)
  peer.connect(1, TARGET).connect(5, TARGET)
  await peer.status(5)
  peer.send(frame(FRAME.ping, 0, 0, bytes(3)))
  await peer.goaway()
  const { payload } = await peer.frame(({ type }) => type === FRAME.goaway)
  t.equal(payload.readUInt32BE(), 5)
})

function connectFrame(): Buffer {
  const block = new HpackEncoder().encode([
    [':method', 'CONNECT'],
    [':authority', TARGET],
  ])
  return frame(FRAME.headers, FLAG.endHeaders, 1, block)
}
