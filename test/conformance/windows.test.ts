import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { CODE, DEFAULT_WINDOW, FLAG, FRAME, MAX_WINDOW, SETTING } from '../../agent/hbone/protocol.ts'
import type { Tunnel } from '../../agent/hbone/tunnel.ts'
import { data, frame, settings, windowUpdate, type RawPeer } from '../helpers/raw-peer.ts'
import {
  TARGET,
  probeClient,
  probeServer,
  verdict,
  type Probe,
  type ProbeOptions,
  type Role,
} from '../helpers/foreign-session.ts'
import { Receiver } from '../helpers/tunnel.ts'

const OVERFLOW = 'FLOW_CONTROL_ERROR'

/** Tunnels of a session of ours, by stream, open, with nobody crediting what they get unless told to. */
interface Tunnels extends Probe {
  readonly tunnels: Tunnel[]
  readonly received: Receiver[]
}

async function open(
  t: Test,
  role: Role,
  count: number,
  options: ProbeOptions & { credit?: boolean } = {},
): Promise<Tunnels> {
  const tunnels: Tunnel[] = []
  const received: Receiver[] = []
  const take = (tunnel: Tunnel) => {
    tunnels.push(tunnel)
    received.push(new Receiver(tunnel, { credit: options.credit ?? false }))
  }
  if (role === 'server') {
    const onConnect = (request: { respond(status: number): void; tunnel: Tunnel }) => {
      request.respond(200)
      take(request.tunnel)
    }
    const probe = await probeServer(t, { ...options, onConnect })
    for (let at = 0; at < count; at++) probe.peer.connect(1 + 2 * at, TARGET)
    await probe.peer.status(2 * count - 1)
    return { ...probe, tunnels, received }
  }
  const probe = await probeClient(t, options)
  for (let at = 0; at < count; at++) {
    const opening = probe.session.connect(TARGET, [])
    await probe.peer.frame(({ type, streamId }) => type === FRAME.headers && streamId === 1 + 2 * at)
    probe.peer.headers(1 + 2 * at, [[':status', '200']])
    take((await opening).tunnel)
  }
  return { ...probe, tunnels, received }
}

/** Bytes of DATA that the peer has got, of one stream or of all. */
function got(peer: RawPeer, streamId?: number): number {
  let bytes = 0
  for (const each of peer.frames)
    if (each.type === FRAME.data && (streamId === undefined || each.streamId === streamId))
      bytes += each.payload.length
  return bytes
}

for (const role of ['server', 'client'] as const) {
  await t.test(`§5.2, §6.9 our ${role} sends no more than both windows allow`, async t => {
    const { peer, tunnels } = await open(t, role, 2)
    const bytes = randomBytes(100_000)
    tunnels[0]!.write(bytes)
    await peer.pong()
    t.equal(got(peer), DEFAULT_WINDOW, 'until the peer says otherwise, 65,535')
    peer.send(windowUpdate(1, 10_000))
    await peer.pong()
    t.equal(got(peer), DEFAULT_WINDOW, 'the connection’s window is as full')
    peer.send(windowUpdate(0, 20_000))
    await peer.pong()
    t.equal(got(peer), DEFAULT_WINDOW + 10_000, 'now it is the stream’s that stops it')
    tunnels[1]!.write(bytes)
    await peer.pong()
    t.equal(got(peer, 3), 10_000, 'and the other stream has what is left')
    peer.send(windowUpdate(0, 1_000_000), windowUpdate(1, 1_000_000))
    await peer.pong()
    const sent = peer.frames.filter(({ type, streamId }) => type === FRAME.data && streamId === 1)
    t.ok(Buffer.concat(sent.map(({ payload }) => payload)).equals(bytes), 'nothing is lost or doubled')
  })

  await t.test(`§6.9 empty DATA is sent by our ${role} though both windows are shut`, async t => {
    const { peer, tunnels } = await open(t, role, 1)
    tunnels[0]!.write(Buffer.alloc(DEFAULT_WINDOW))
    tunnels[0]!.end()
    const last = await peer.frame(({ type, flags }) => type === FRAME.data && (flags & FLAG.endStream) !== 0)
    t.ok(last.payload.length === 0 || got(peer) === DEFAULT_WINDOW)
  })

  await t.test(`§6.9 a stream that may not send stops no other of our ${role}`, async t => {
    const { peer, tunnels } = await open(t, role, 3, { settings: [[SETTING.initialWindowSize, 1000]] })
    for (const tunnel of tunnels) tunnel.write(Buffer.alloc(50_000))
    await peer.pong()
    t.equal(got(peer), 3000)
    peer.send(windowUpdate(5, 49_000))
    await peer.pong()
    t.strictSame([got(peer, 1), got(peer, 3), got(peer, 5)], [1000, 1000, 50_000])
  })

  await t.test(`§6.9.1 windows of our ${role} reach 2^31-1 and not one further`, async t => {
    const room = MAX_WINDOW - DEFAULT_WINDOW
    const cases: [what: string, sent: Buffer[], expected: string][] = [
      ['the connection’s, to the limit', [windowUpdate(0, room)], 'passes'],
      ['the connection’s, over it', [windowUpdate(0, room + 1)], `connection error ${OVERFLOW}`],
      [
        'the connection’s, in two steps',
        [windowUpdate(0, room), windowUpdate(0, 1)],
        `connection error ${OVERFLOW}`,
      ],
      ['a stream’s, to the limit', [windowUpdate(1, room)], 'passes'],
      ['a stream’s, over it', [windowUpdate(1, room + 1)], `stream error ${OVERFLOW}`],
      ['the connection’s, by 0', [windowUpdate(0, 0)], 'connection error PROTOCOL_ERROR'],
      ['a stream’s, by 0', [windowUpdate(1, 0)], 'stream error PROTOCOL_ERROR'],
      [
        'a stream’s, by a change of SETTINGS',
        [windowUpdate(1, room), settings([SETTING.initialWindowSize, DEFAULT_WINDOW + 1])],
        `connection error ${OVERFLOW}`,
      ],
      ['a stream’s, by SETTINGS to the limit', [settings([SETTING.initialWindowSize, MAX_WINDOW])], 'passes'],
    ]
    for (const [what, sent, expected] of cases) {
      const probe = await open(t, role, 1)
      const since = probe.peer.frames.length
      probe.peer.send(...sent)
      t.equal(await verdict(probe, since), expected, what)
    }
  })

  await t.test(
    `§6.9.2 a smaller INITIAL_WINDOW_SIZE puts open streams of our ${role} below zero`,
    async t => {
      const { peer, tunnels } = await open(t, role, 2, { settings: [[SETTING.initialWindowSize, 10_000]] })
      for (const tunnel of tunnels) tunnel.write(Buffer.alloc(100_000))
      await peer.pong()
      t.equal(got(peer), 20_000)
      peer.send(settings([SETTING.initialWindowSize, 4000])) // both windows: -6,000
      peer.send(windowUpdate(1, 6000))
      await peer.pong()
      t.equal(got(peer, 1), 10_000, 'at zero: not a byte')
      peer.send(windowUpdate(1, 1))
      await peer.pong()
      t.equal(got(peer, 1), 10_001)
      peer.send(settings([SETTING.initialWindowSize, 12_000]))
      await peer.pong()
      t.strictSame([got(peer, 1), got(peer, 3)], [18_001, 12_000], 'a larger one lets both go on')
      peer.send(settings([SETTING.initialWindowSize, 0]))
      await peer.pong()
      peer.send(windowUpdate(3, 12_000))
      await peer.pong()
      t.equal(got(peer, 3), 12_000, 'at zero')
    },
  )

  await t.test(`§6.9.2 the connection’s window of our ${role} is moved by WINDOW_UPDATE alone`, async t => {
    const { peer, tunnels } = await open(t, role, 1, { settings: [[SETTING.initialWindowSize, 1 << 20]] })
    tunnels[0]!.write(Buffer.alloc(200_000))
    await peer.pong()
    t.equal(got(peer), DEFAULT_WINDOW)
  })

  const small = { session: { streamWindow: 65_535, connectionWindow: 131_070 } }

  await t.test(`§6.9.1 our ${role} takes what it allowed to the last byte, and not one more`, async t => {
    const full = [16_384, 16_384, 16_384, 16_383].map(size => Buffer.alloc(size))
    for (const [what, more, expected] of [
      ['a full window', [], 'passes'],
      ['and an empty frame', [data(1, Buffer.alloc(0))], 'passes'],
      ['and a byte', [data(1, Buffer.alloc(1))], `connection error ${OVERFLOW}`],
      [
        'and a byte of padding',
        [frame(FRAME.data, FLAG.padded, 1, Buffer.of(0))],
        `connection error ${OVERFLOW}`,
      ],
      ['and the other stream’s window', full.map(piece => data(3, piece)), 'passes'],
      [
        'and a byte on a third, when the connection’s is full',
        [...full.map(piece => data(3, piece)), data(5, Buffer.alloc(1))],
        `connection error ${OVERFLOW}`,
      ],
    ] as const) {
      const probe = await open(t, role, 3, small)
      const since = probe.peer.frames.length
      for (const piece of full) probe.peer.send(data(1, piece))
      probe.peer.send(...more)
      t.equal(await verdict(probe, since), expected, what)
    }
  })

  await t.test(
    `§6.9 our ${role} gives credit for what was taken, dropped and padding, and for no more`,
    async t => {
      const probe = await open(t, role, 2, small)
      const { peer, tunnels, received } = probe
      const credits = (streamId: number) => {
        let sum = 0
        for (const each of peer.frames)
          if (each.type === FRAME.windowUpdate && each.streamId === streamId)
            sum += each.payload.readUInt32BE()
        return sum
      }
      const before = credits(0)
      for (let at = 0; at < 4; at++) peer.send(data(1, Buffer.alloc(16_000)))
      await received[0]!.until(64_000)
      await peer.pong()
      t.equal(credits(1), 0, 'nobody has taken it')
      tunnels[0]!.consumed(64_000)
      await peer.pong()
      t.equal(credits(1), 64_000)
      // Padding is for nobody: it comes back by itself. 200 times 256 bytes.
      const padding = frame(FRAME.data, FLAG.padded, 3, Buffer.concat([Buffer.of(255), Buffer.alloc(255)]))
      for (let at = 0; at < 200; at++) peer.send(padding)
      await peer.pong()
      t.ok(credits(3) > 30_000 && credits(3) <= 51_200, `${credits(3)} bytes for padding`)
      // What comes after a reset is dropped, and counts for the connection alone.
      tunnels[1]!.reset(CODE.cancel)
      for (let at = 0; at < 100; at++) {
        peer.send(data(3, Buffer.alloc(16_000)))
        await peer.pong()
      }
      t.equal(await verdict(probe, peer.frames.length), 'passes', '1.6 MB through a window of 131,070')
      t.ok(credits(0) - before <= 64_000 + 51_200 + 1_600_000)
    },
  )
}
