/**
 * §10.5: frames that move no application byte are counted. Each kind, as many of them as are allowed at once, and more.
 * The clock of the counter stands still, so that "at once" is exact.
 */
import t, { type Test } from 'tap'
import { ControlBudget } from '../../agent/hbone/budget.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import { CONTROL_BURST, CONTROL_RATE_PER_SECOND, SMALL_WINDOW_UPDATE } from '../../agent/hbone/limits.ts'
import { CODE, FLAG, FRAME, SETTING } from '../../agent/hbone/protocol.ts'
import { data, frame, ping, repeat, rst, settings, windowUpdate, type RawPeer } from '../helpers/raw-peer.ts'
import {
  TARGET,
  accept,
  inState,
  probeServer,
  verdict,
  type Role,
  type State,
} from '../helpers/foreign-session.ts'

const CALM = 'connection error ENHANCE_YOUR_CALM'
/** What the state before a flood and the verdict after it may have cost. */
const SPENT = 50
/** In so many pieces: the peer reads its answers in between, as an honest one would. */
const PIECES = 10

function stopClock(t: Test): { goOn: (ms: number) => void } {
  let now = Math.ceil(performance.now()) // whole: sums of fractions are a little off
  t.intercept(performance, 'now', { value: () => now })
  return { goOn: ms => (now += ms) }
}

async function flood(peer: RawPeer, bytes: Buffer, times: number): Promise<void> {
  for (let piece = 0; piece < PIECES && !peer.isClosed; piece++) {
    peer.send(repeat(bytes, times / PIECES))
    await peer.pong().catch(() => undefined)
  }
}

await t.test('a burst is allowed at once, then so many a second, and never a larger burst', t => {
  const clock = stopClock(t)
  const budget = new ControlBudget()
  const spend = (times: number) => {
    for (let at = 0; at < times; at++) budget.spend('PING')
  }
  const tooMany = { h2Code: CODE.enhanceYourCalm, message: /too many control frames \(PING\)/ } as never
  spend(CONTROL_BURST)
  t.throws(() => spend(1), tooMany)
  clock.goOn(1000)
  spend(CONTROL_RATE_PER_SECOND)
  t.throws(() => spend(1), tooMany)
  clock.goOn(3_600_000)
  spend(CONTROL_BURST)
  t.throws(() => spend(1), tooMany)
  t.end()
})

const CONTINUE = Buffer.from(new HpackEncoder().encode([[':status', '100']]))

const FLOODS: [what: string, role: Role | 'both', state: State, bytes: Buffer][] = [
  ['§6.7 PING', 'both', 'idle', ping()],
  ['§6.7 answers to no PING', 'both', 'idle', frame(FRAME.ping, FLAG.ack, 0, Buffer.alloc(8))],
  ['§6.5 SETTINGS', 'both', 'idle', settings([SETTING.initialWindowSize, 70_000])],
  ['§6.5 empty SETTINGS', 'both', 'open', settings()],
  ['§6.1 empty DATA', 'both', 'open', data(1, Buffer.alloc(0))],
  ['§6.1 empty DATA on a stream that has ended', 'both', 'ended both ways', data(1, Buffer.alloc(0))],
  ['§6.3 PRIORITY', 'both', 'idle', frame(FRAME.priority, 0, 1, Buffer.alloc(5))],
  ['§5.5 unknown frames', 'both', 'idle', frame(0xfa, 0, 0)],
  ['§6.4 RST_STREAM of a stream that has ended', 'both', 'ended both ways', rst(1, CODE.cancel)],
  ['§6.9 windows opened bit by bit', 'both', 'open', windowUpdate(1, SMALL_WINDOW_UPDATE - 1)],
  ['§6.9 the connection’s window, bit by bit', 'both', 'idle', windowUpdate(0, 1)],
  ['§6.8 GOAWAY', 'both', 'open', frame(FRAME.goaway, 0, 0, Buffer.from('7fffffff00000000', 'hex'))],
  [
    '§5.1 HEADERS of a stream that has ended',
    'both',
    'ended both ways',
    frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0x82)),
  ],
  ['§8.1 informational answers', 'client', 'asked', frame(FRAME.headers, FLAG.endHeaders, 1, CONTINUE)],
]

for (const [what, whose, state, bytes] of FLOODS)
  for (const role of whose === 'both' ? (['server', 'client'] as const) : [whose])
    await t.test(`§10.5 ${what}: a burst is borne by our ${role}, more are too many`, async t => {
      stopClock(t)
      const probe = await inState(t, role, state)
      await flood(probe.peer, bytes, CONTROL_BURST - SPENT)
      t.equal(await verdict(probe, probe.peer.frames.length), 'passes')
      await flood(probe.peer, bytes, 2 * SPENT)
      t.equal(await verdict(probe), CALM)
    })

await t.test('§6.9 windows opened in honest steps are not counted', async t => {
  stopClock(t)
  const probe = await inState(t, 'server', 'open')
  // Less than the window's end in all: 60,000 times 1024.
  for (let at = 0; at < 12; at++) await flood(probe.peer, windowUpdate(1, SMALL_WINDOW_UPDATE), 5000)
  t.equal(await verdict(probe, probe.since), 'passes')
})

await t.test('§6.1 bytes are not counted, however many frames they come in', async t => {
  stopClock(t)
  const probe = await probeServer(t, { onConnect: accept })
  probe.peer.connect(1, TARGET)
  await flood(probe.peer, data(1, Buffer.of(7)), 2 * CONTROL_BURST)
  t.equal(await verdict(probe, probe.peer.frames.length), 'passes')
})

/** Streams, each opened and given up or refused, from a stream on. */
function streams(encoder: HpackEncoder, first: number, count: number, isReset: boolean): Buffer {
  const frames: Buffer[] = []
  for (let id = first; id < first + 2 * count; id += 2) {
    const block = encoder.encode([
      [':method', 'CONNECT'],
      [':authority', TARGET],
    ])
    frames.push(frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, id, block))
    if (isReset) frames.push(rst(id, CODE.cancel))
  }
  return Buffer.concat(frames)
}

for (const [what, isReset, options] of [
  ['opened and reset in one breath (CVE-2023-44487)', true, { onConnect: () => undefined }],
  ['refused by the application', false, { onConnect: request => request.respond(503) }],
  ['over MAX_CONCURRENT_STREAMS', false, { session: { maxConcurrentStreams: 0 } }],
] as [string, boolean, Parameters<typeof probeServer>[1]][])
  await t.test(`§10.5 streams ${what}: a burst is borne, more are too many`, async t => {
    stopClock(t)
    const probe = await probeServer(t, options)
    const encoder = new HpackEncoder()
    let first = 1
    const more = async (count: number) => {
      for (let piece = 0; piece < PIECES && !probe.peer.isClosed; piece++) {
        probe.peer.send(streams(encoder, first, count / PIECES, isReset))
        first += (2 * count) / PIECES
        await probe.peer.pong().catch(() => undefined)
      }
    }
    await more(CONTROL_BURST - SPENT)
    t.equal(await verdict(probe, probe.peer.frames.length), 'passes')
    t.equal(probe.session.openStreams, 0)
    await more(2 * SPENT)
    t.equal(await verdict(probe), CALM)
  })
