import t from 'tap'
import { ClientSession } from '../../agent/hbone/client.ts'
import { HpackDecoder } from '../../agent/hbone/hpack/decoder.ts'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { CODE, FLAG, FRAME, MAX_WINDOW, PREFACE, SETTING } from '../../agent/hbone/protocol.ts'
import { ServerSession } from '../../agent/hbone/server.ts'
import { decodeList } from '../helpers/hpack.ts'
import { data, frame, rst, RawPeer, settings } from '../helpers/raw-peer.ts'
import { TARGET, inState, probeClient, probeServer, verdict } from '../helpers/foreign-session.ts'
import { socketPair } from '../helpers/tcp.ts'

const PROTOCOL = 'connection error PROTOCOL_ERROR'
const OVERFLOW = 'connection error FLOW_CONTROL_ERROR'

type Pair = [id: number, value: number]

/** RFC 9113 §6.5.2: the bounds of each setting. */
const VALUES: [pair: Pair, expected: string][] = [
  [[SETTING.headerTableSize, 0], 'passes'],
  [[SETTING.headerTableSize, 0xffff_ffff], 'passes'],
  [[SETTING.enablePush, 0], 'passes'],
  [[SETTING.enablePush, 2], PROTOCOL],
  [[SETTING.enablePush, 0xffff_ffff], PROTOCOL],
  [[SETTING.maxConcurrentStreams, 0], 'passes'],
  [[SETTING.maxConcurrentStreams, 0xffff_ffff], 'passes'],
  [[SETTING.initialWindowSize, 0], 'passes'],
  [[SETTING.initialWindowSize, MAX_WINDOW], 'passes'],
  [[SETTING.initialWindowSize, MAX_WINDOW + 1], OVERFLOW],
  [[SETTING.initialWindowSize, 0xffff_ffff], OVERFLOW],
  [[SETTING.maxFrameSize, 16_384], 'passes'],
  [[SETTING.maxFrameSize, 16_383], PROTOCOL],
  [[SETTING.maxFrameSize, 0xff_ffff], 'passes'],
  [[SETTING.maxFrameSize, 0x100_0000], PROTOCOL],
  [[SETTING.maxFrameSize, 0], PROTOCOL],
  [[SETTING.maxHeaderListSize, 0], 'passes'],
  [[SETTING.maxHeaderListSize, 0xffff_ffff], 'passes'],
  [[0x0, 7], 'passes'],
  [[0x8, 1], 'passes'], // ENABLE_CONNECT_PROTOCOL, which we have no use for
  [[0xffff, 0xffff_ffff], 'passes'],
]

for (const role of ['server', 'client'] as const) {
  await t.test(`§6.5.2 values of SETTINGS sent to our ${role}, first or later`, async t => {
    for (const [pair, expected] of VALUES) {
      const first =
        role === 'server'
          ? await probeServer(t, { settings: [pair] })
          : await probeClient(t, { settings: false })
      if (role === 'client') first.peer.send(settings(pair))
      t.equal(await verdict(first), expected, `${pair.join('=')} at the beginning`)
      const later = await inState(t, role, 'open')
      later.peer.send(settings(pair))
      t.equal(await verdict(later, later.since), expected, `${pair.join('=')} later`)
    }
  })

  await t.test(
    `§6.5.3 our ${role} acknowledges each SETTINGS once, and after it has taken effect`,
    async t => {
      const { peer, since } = await inState(t, role, 'open')
      const isAck = ({ type, flags }: RawPeer['frames'][0]) => type === FRAME.settings && flags === FLAG.ack
      peer.send(settings([SETTING.initialWindowSize, 1]), settings(), settings([0xaa, 1], [0xab, 2]))
      await peer.pong()
      t.equal(peer.frames.slice(since).filter(isAck).length, 3)
      t.strictSame(peer.frames.slice(since).filter(isAck)[0]?.payload.length, 0)
      peer.send(frame(FRAME.settings, FLAG.ack, 0))
      await peer.pong()
      t.equal(peer.frames.slice(since).filter(isAck).length, 3, 'an acknowledgement is not acknowledged')
    },
  )

  await t.test(`§6.5.3 of a setting named twice the last one holds for our ${role}`, async t => {
    const probe = await inState(t, role, 'open')
    probe.peer.send(settings([SETTING.initialWindowSize, 5], [SETTING.initialWindowSize, 0xffff]))
    t.equal(await verdict(probe, probe.since), 'passes')
    const wrong = await inState(t, role, 'open')
    wrong.peer.send(settings([SETTING.maxFrameSize, 1], [SETTING.maxFrameSize, 16_384]))
    t.equal(await verdict(wrong, wrong.since), PROTOCOL, 'and a wrong one is wrong though another follows')
  })

  await t.test(`§6.5 without SETTINGS within its time our ${role} ends the session`, async t => {
    const [near, far] = await socketPair(t)
    far.on('error', () => undefined)
    const options = { ...DEFAULT_SESSION, prefaceTimeoutMs: 30 }
    const session =
      role === 'server'
        ? new ServerSession(near, options, () => t.fail('a request'))
        : new ClientSession(near, options)
    far.resume()
    const error = await new Promise(resolve => session.onClosed(resolve))
    t.match(error, { h2Code: CODE.settingsTimeout, message: /no SETTINGS within 30 ms/ })
  })

  await t.test(`§6.5.3 so it does when its own are not acknowledged in time (${role})`, async t => {
    const [near, far] = await socketPair(t)
    far.on('error', () => undefined)
    const options = { ...DEFAULT_SESSION, prefaceTimeoutMs: 30 }
    const session =
      role === 'server'
        ? new ServerSession(near, options, () => t.fail('a request'))
        : new ClientSession(near, options)
    new RawPeer(far, { isServer: role === 'client' }).send(
      ...(role === 'server' ? [PREFACE] : []),
      settings(),
    )
    const error = await new Promise(resolve => session.onClosed(resolve))
    t.match(error, { h2Code: CODE.settingsTimeout, message: /not acknowledged within 30 ms/ })
  })
}

await t.test('§6.5.2 a server that turns push on is in error', async t => {
  const first = await probeClient(t, { settings: false })
  first.peer.send(settings([SETTING.enablePush, 1]))
  t.equal(await verdict(first), PROTOCOL)
  const later = await inState(t, 'client', 'open')
  later.peer.send(settings([SETTING.enablePush, 1]))
  t.equal(await verdict(later, later.since), PROTOCOL)
})

await t.test('§6.5.2 what our sessions announce is what they hold others to', async t => {
  const of = ({ payload }: { payload: Buffer }): Record<number, number> => {
    const pairs: Record<number, number> = {}
    for (let at = 0; at < payload.length; at += 6)
      pairs[payload.readUInt16BE(at)] = payload.readUInt32BE(at + 2)
    return pairs
  }
  const common = {
    [SETTING.initialWindowSize]: DEFAULT_SESSION.streamWindow,
    [SETTING.maxFrameSize]: DEFAULT_SESSION.maxFrame,
    [SETTING.maxHeaderListSize]: DEFAULT_SESSION.maxHeaderList,
  }
  const server = await probeServer(t)
  t.strictSame(of(await server.peer.frame(({ type }) => type === FRAME.settings)), {
    ...common,
    [SETTING.maxConcurrentStreams]: DEFAULT_SESSION.maxConcurrentStreams,
  })
  const client = await probeClient(t)
  t.strictSame(of(await client.peer.frame(({ type }) => type === FRAME.settings)), {
    ...common,
    [SETTING.enablePush]: 0, // §8.4: and so a PUSH_PROMISE is an error
  })
})

await t.test(
  '§6.5.2 MAX_FRAME_SIZE: no frame that we send is longer, and it may change under way',
  async t => {
    const { peer, requests } = await probeServer(t, { settings: [[SETTING.initialWindowSize, 1 << 24]] })
    peer.connect(1, TARGET)
    await peer.status(1)
    const { tunnel } = requests[0]!
    peer.send(frame(FRAME.windowUpdate, 0, 0, Buffer.of(0, 255, 255, 255)))
    const longest = async (limit?: number): Promise<number> => {
      if (limit !== undefined) peer.send(settings([SETTING.maxFrameSize, limit]))
      await peer.pong()
      const since = peer.frames.length
      tunnel.write(Buffer.alloc(1_000_000))
      await peer.pong()
      const sizes = peer.frames.slice(since).filter(({ type }) => type === FRAME.data)
      return Math.max(...sizes.map(({ payload }) => payload.length))
    }
    t.equal(await longest(), 16_384)
    t.equal(await longest(20_000), 20_000)
    t.equal(await longest(16_384), 16_384)
    const most = await longest(0xff_ffff)
    t.ok(most <= DEFAULT_SESSION.sendFrame && most > 20_000, `${most} bytes: more only delays other streams`)
  },
)

await t.test('§4.3, §6.10 headers longer than the peer’s frames are cut into CONTINUATION', async t => {
  const { session, peer } = await probeClient(t)
  session.connect(TARGET, [['x', 'y'.repeat(40_000)]]).catch(() => undefined)
  await peer.pong()
  const parts = peer.frames.filter(({ streamId }) => streamId === 1)
  t.strictSame(
    parts.map(({ type, flags }) => [type, flags]),
    [
      [FRAME.headers, 0],
      [FRAME.continuation, 0],
      [FRAME.continuation, FLAG.endHeaders],
    ],
  )
  t.ok(parts.every(({ payload }) => payload.length <= 16_384))
})

await t.test(
  '§6.5.2 HEADER_TABLE_SIZE: the next block begins with the size in use (RFC 7541 §4.2)',
  async t => {
    const { session, peer } = await probeClient(t, { settings: [[SETTING.headerTableSize, 100]] })
    const decoder = new HpackDecoder({ maxTableSize: 4096 })
    const block = async (streamId: number) => {
      session.connect(TARGET, [['baggage', 'k8s.pod.name=web']]).catch(() => undefined)
      const sent = await peer.frame(each => each.type === FRAME.headers && each.streamId === streamId)
      return sent.payload
    }
    const expected = [
      [':method', 'CONNECT'],
      [':authority', TARGET],
      ['baggage', 'k8s.pod.name=web'],
    ]
    const first = await block(1)
    t.equal(first.subarray(0, 2).toString('hex'), '3f45', '100')
    t.strictSame(decodeList(decoder, first), expected)
    peer.send(settings([SETTING.headerTableSize, 0]))
    await peer.pong()
    const second = await block(3)
    t.equal(second[0], 0x20, 'none')
    t.strictSame(decodeList(decoder, second), expected)
    t.strictSame(decodeList(decoder, await block(5)), expected)
    peer.send(settings([SETTING.headerTableSize, 50]), settings([SETTING.headerTableSize, 4096]))
    await peer.pong()
    const last = await block(7)
    t.equal(last.subarray(0, 5).toString('hex'), '3f133fe11f', '50, the least in between, and 4096')
    t.strictSame(decodeList(decoder, last), expected)
  },
)

await t.test('§6.5.2 a first SETTINGS that comes late changes the streams that are open by then', async t => {
  const { session, peer } = await probeClient(t, { settings: false })
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  peer.send(settings([SETTING.initialWindowSize, 10])).headers(1, [[':status', '200']])
  const { tunnel } = await opening
  tunnel.write(Buffer.alloc(1000))
  await peer.pong()
  const sent = peer.frames.filter(({ type }) => type === FRAME.data)
  t.strictSame(
    sent.map(({ payload }) => payload.length),
    [10],
  )
})

await t.test('§6.5 nothing that a server says counts before its SETTINGS', async t => {
  for (const [what, bytes] of [
    ['DATA', data(1, Buffer.alloc(1))],
    ['RST_STREAM', rst(1, CODE.refusedStream)],
    ['WINDOW_UPDATE', frame(FRAME.windowUpdate, 0, 0, Buffer.of(0, 0, 9, 9))],
  ] as const) {
    const probe = await probeClient(t, { settings: false })
    const opening = probe.session.connect(TARGET, [])
    opening.catch(() => undefined)
    probe.peer.send(bytes)
    t.equal(await verdict(probe), PROTOCOL, what)
  }
})

await t.test(
  'RFC 7541 §4.2 a table that shrank and grew in one SETTINGS is announced with its low point',
  async t => {
    const { session, peer } = await probeClient(t)
    const decoder = new HpackDecoder()
    const block = async (streamId: number) => {
      session.connect(TARGET, []).catch(() => undefined)
      return (await peer.frame(each => each.type === FRAME.headers && each.streamId === streamId)).payload
    }
    decodeList(decoder, await block(1))
    peer.send(settings([SETTING.headerTableSize, 0], [SETTING.headerTableSize, 4096]))
    await peer.pong()
    t.equal((await block(3)).subarray(0, 4).toString('hex'), '203fe11f')
  },
)
