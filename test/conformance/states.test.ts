import t from 'tap'
import { CODE, FLAG, FRAME } from '../../agent/hbone/protocol.ts'
import { data, frame, rst, windowUpdate, type RawPeer } from '../helpers/raw-peer.ts'
import { STATES, inState, verdict, type State } from '../helpers/foreign-session.ts'

const PROTOCOL = 'connection error PROTOCOL_ERROR'
const NOT_THERE = 'stream error STREAM_CLOSED'
const MALFORMED = 'stream error PROTOCOL_ERROR'

/** States in which RFC 9113 §5.1 lets a frame be read and dropped: it may have been under way. */
const CLOSED: readonly State[] = ['ended both ways', 'reset by the peer', 'reset by us']

interface Case {
  readonly what: string
  readonly send: (peer: RawPeer) => unknown
  /** Where it is no cause for complaint. */
  readonly fine: readonly State[]
  /** What becomes of it elsewhere. */
  readonly not: Partial<Record<State, string>>
}

const ALWAYS: readonly State[] = STATES
const BOTH_OPEN: readonly State[] = ['open', 'half-closed by us']
const NOT_IDLE = STATES.filter(state => state !== 'idle')

const CASES: readonly Case[] = [
  {
    what: 'DATA',
    send: peer => peer.send(data(1, Buffer.from('bytes'))),
    fine: [...BOTH_OPEN, ...CLOSED],
    not: { idle: PROTOCOL, 'half-closed by the peer': NOT_THERE },
  },
  {
    what: 'DATA that ends the stream',
    send: peer => peer.send(data(1, Buffer.from('bytes'), FLAG.endStream)),
    fine: [...BOTH_OPEN, ...CLOSED],
    not: { idle: PROTOCOL, 'half-closed by the peer': NOT_THERE },
  },
  {
    what: 'RST_STREAM',
    send: peer => peer.send(rst(1, CODE.cancel)),
    fine: NOT_IDLE, // §5.4.2: and never answered by another
    not: { idle: PROTOCOL },
  },
  {
    what: 'WINDOW_UPDATE',
    send: peer => peer.send(windowUpdate(1, 5000)),
    fine: NOT_IDLE,
    not: { idle: PROTOCOL },
  },
  {
    what: 'PRIORITY',
    send: peer => peer.send(frame(FRAME.priority, 0, 1, Buffer.of(0, 0, 0, 0, 15))),
    fine: ALWAYS,
    not: {},
  },
  {
    what: 'a frame of unknown type, with every flag',
    send: peer => peer.send(frame(0xfa, 0xff, 1, Buffer.from('who knows'))),
    fine: ALWAYS,
    not: {},
  },
  {
    what: 'PUSH_PROMISE',
    send: peer => peer.send(frame(FRAME.pushPromise, FLAG.endHeaders, 1, Buffer.of(0, 0, 0, 2, 0x82))),
    fine: [],
    not: Object.fromEntries(STATES.map(state => [state, PROTOCOL])),
  },
  {
    what: 'CONTINUATION',
    send: peer => peer.send(frame(FRAME.continuation, FLAG.endHeaders, 1, Buffer.of(0x82))),
    fine: [],
    not: Object.fromEntries(STATES.map(state => [state, PROTOCOL])),
  },
  {
    what: 'a second block of headers',
    send: peer => peer.headers(1, [['x', 'y']]),
    fine: CLOSED,
    not: {
      asked: MALFORMED,
      open: MALFORMED,
      'half-closed by us': MALFORMED,
      'half-closed by the peer': NOT_THERE,
    },
  },
  {
    what: 'trailers, which a tunnel does not have (§8.5)',
    send: peer => peer.headers(1, [['x', 'y']], FLAG.endStream),
    fine: CLOSED,
    not: {
      asked: MALFORMED,
      open: MALFORMED,
      'half-closed by us': MALFORMED,
      'half-closed by the peer': NOT_THERE,
    },
  },
]

for (const role of ['server', 'client'] as const)
  for (const { what, send, fine, not } of CASES)
    await t.test(`§5.1 ${what}, sent to our ${role}, in every state of a stream`, async t => {
      for (const state of STATES) {
        const expected = fine.includes(state) ? 'passes' : not[state]
        if (expected === undefined) continue
        const probe = await inState(t, role, state)
        send(probe.peer)
        t.equal(await verdict(probe, probe.since), expected, state)
      }
    })
