import { randomBytes } from 'node:crypto'
import t from 'tap'
import { CODE, FLAG, FRAME, PREFACE, SETTING } from '../../agent/hbone/protocol.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import { RawPeer, data, frame, ping, repeat, rst, settings, windowUpdate } from '../helpers/raw-peer.ts'
import { Victim } from '../helpers/victim.ts'

const MIB = 1024 * 1024
/** With the acknowledgement, so that nothing but what comes after it is wrong, however long that takes. */
const HELLO = [PREFACE, settings(), frame(FRAME.settings, FLAG.ack, 0)]

await t.test('what breaks HTTP/2 ends the session with a GOAWAY that names it', async t => {
  const victim = await Victim.start(t, { patienceMs: 1000 })
  const before = await victim.measure()
  const big = Buffer.alloc(100)
  const encoder = new HpackEncoder()
  const connect = (authority: string) =>
    encoder.encode([
      [':method', 'CONNECT'],
      [':authority', authority],
    ])
  const cases: [what: string, bytes: Buffer[], code: number, text: RegExp][] = [
    [
      'HTTP/1.1',
      [Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
      CODE.protocolError,
      /wrong connection preface/,
    ],
    [
      'a wrong preface',
      [PREFACE.subarray(0, 20), Buffer.from('xxxx')],
      CODE.protocolError,
      /wrong connection preface/,
    ],
    [
      'random bytes',
      [Buffer.concat([Buffer.of(0), randomBytes(5000)])],
      CODE.protocolError,
      /wrong connection preface/,
    ],
    ['no SETTINGS', [PREFACE], CODE.settingsTimeout, /no SETTINGS within/],
    ['a preface that never ends', [PREFACE.subarray(0, 10)], CODE.settingsTimeout, /no SETTINGS within/],
    [
      'requests before SETTINGS',
      [PREFACE, frame(FRAME.headers, FLAG.endHeaders, 1, connect('10.77.0.2:8080'))],
      CODE.protocolError,
      /first frame was not SETTINGS/,
    ],
    ['DATA before SETTINGS', [PREFACE, data(1, big)], CODE.protocolError, /first frame was not SETTINGS/],
    ['DATA on an idle stream', [...HELLO, data(1, big)], CODE.protocolError, /DATA on idle stream 1/],
    ['DATA on stream 0', [...HELLO, data(0, big)], CODE.protocolError, /DATA on stream 0/],
    [
      'HEADERS on an even stream',
      [...HELLO, frame(FRAME.headers, FLAG.endHeaders, 2, Buffer.of(0x82))],
      CODE.protocolError,
      /even stream 2/,
    ],
    [
      'garbage for headers',
      [...HELLO, frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(100, 0xff))],
      CODE.compressionError,
      /malformed header block/,
    ],
    [
      'a frame of 16 MiB',
      [...HELLO, Buffer.from('ffffff010400000001', 'hex')],
      CODE.frameSizeError,
      /frame of 16777215 bytes/,
    ],
    [
      'a long control frame',
      [...HELLO, frame(FRAME.ping, 0, 0, Buffer.alloc(20_000))],
      CODE.frameSizeError,
      /control frame of 20000 bytes/,
    ],
    [
      'a PING of 7 bytes',
      [...HELLO, frame(FRAME.ping, 0, 0, Buffer.alloc(7))],
      CODE.frameSizeError,
      /PING frame of 7 bytes/,
    ],
    [
      'SETTINGS of 5 bytes',
      [PREFACE, frame(FRAME.settings, 0, 0, Buffer.alloc(5))],
      CODE.frameSizeError,
      /SETTINGS frame of 5 bytes/,
    ],
    [
      'a window over 2^31-1',
      [PREFACE, settings([SETTING.initialWindowSize, 0xffff_ffff])],
      CODE.flowControlError,
      /INITIAL_WINDOW_SIZE/,
    ],
    [
      'a tiny frame size',
      [PREFACE, settings([SETTING.maxFrameSize, 1])],
      CODE.protocolError,
      /MAX_FRAME_SIZE of 1/,
    ],
    [
      'a connection window overflow',
      [...HELLO, windowUpdate(0, 0x7fff_ffff)],
      CODE.flowControlError,
      /connection window overflow/,
    ],
    ['a window update of nothing', [...HELLO, windowUpdate(0, 0)], CODE.protocolError, /WINDOW_UPDATE of 0/],
    ['PUSH_PROMISE', [...HELLO, frame(FRAME.pushPromise, 0, 1, big)], CODE.protocolError, /PUSH_PROMISE/],
    [
      'CONTINUATION of nothing',
      [...HELLO, frame(FRAME.continuation, 0, 1, big)],
      CODE.protocolError,
      /CONTINUATION without HEADERS/,
    ],
    [
      'another frame inside headers',
      [...HELLO, frame(FRAME.headers, 0, 1, Buffer.of(0x82)), ping()],
      CODE.protocolError,
      /another frame inside/,
    ],
    [
      'headers without end',
      [...HELLO, frame(FRAME.headers, 0, 1), repeat(frame(FRAME.continuation, 0, 1), 40)],
      CODE.enhanceYourCalm,
      /header block of 0 bytes in 33 frames/,
    ],
    [
      'huge headers',
      [...HELLO, frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(200_000))],
      CODE.enhanceYourCalm,
      /header block of 200000 bytes/,
    ],
    [
      'a stream reset that never was',
      [...HELLO, rst(9, 0)],
      CODE.protocolError,
      /RST_STREAM on idle stream 9/,
    ],
    [
      'a flood of PING',
      [...HELLO, repeat(ping(), 100_000)],
      CODE.enhanceYourCalm,
      /too many control frames \(PING\)/,
    ],
    [
      'a flood of SETTINGS',
      [...HELLO, repeat(settings([SETTING.initialWindowSize, 1]), 100_000)],
      CODE.enhanceYourCalm,
      /too many control frames \(SETTINGS\)/,
    ],
    [
      'a flood of empty DATA',
      [
        ...HELLO,
        frame(
          FRAME.headers,
          FLAG.endHeaders,
          1,
          new HpackEncoder().encode([
            [':method', 'CONNECT'],
            [':authority', '10.77.0.2:8080'],
          ]),
        ),
        repeat(data(1, Buffer.alloc(0)), 100_000),
      ],
      CODE.enhanceYourCalm,
      /too many control frames \(empty DATA\)/,
    ],
    [
      'a flood of unknown frames',
      [...HELLO, repeat(frame(0xbb, 0, 0), 100_000)],
      CODE.enhanceYourCalm,
      /too many control frames \(type 187\)/,
    ],
  ]
  for (const [what, bytes, code, text] of cases) {
    const peer = new RawPeer(await victim.member())
    peer.send(...bytes)
    const goaway = await peer.goaway().catch(() => undefined)
    // The kernel resets a connection that is closed with bytes unread, and the GOAWAY may go down with it.
    if (goaway || !/flood|huge/.test(what)) t.match(goaway, { code, text }, what)
    await victim.log(line => text.test(String(line.fields['err'])))
    victim.logs.length = 0
  }
  await victim.unharmed()
  const after = await victim.settled(before.descriptors)
  t.equal(after.descriptors, before.descriptors, 'no descriptor is left')
  t.ok(after.heldBytes < before.heldBytes + 10 * MIB, 'nor memory')
})
