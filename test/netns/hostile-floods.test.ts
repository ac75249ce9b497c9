import { once } from 'node:events'
import type { Socket } from 'node:net'
import t from 'tap'
import { FLAG, FRAME, SETTING } from '../../agent/hbone/protocol.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import { failureFrom, inPod, serve } from '../helpers/pods.ts'
import { RawPeer, data, frame, repeat, rst, windowUpdate } from '../helpers/raw-peer.ts'
import { abort } from '../helpers/tcp.ts'
import { certificateOf, identityOf, Victim } from '../helpers/victim.ts'

const MIB = 1024 * 1024
const APP_PORT = 8080
/** Descriptors of sessions that stay in the pool for the next connections: two ends each. */
const POOLED = 20
/** Nothing answers there, not even with a refusal. */
const DEAD_PORT = 9999

await t.test(
  'hundreds of connections aborted in each phase leave nothing behind',
  { timeout: 280_000 },
  async t => {
    const victim = await Victim.start(t)
    const { client, server, stranger } = victim
    inPod(server, 'iptables', ['-A', 'INPUT', '-p', 'tcp', '--dport', String(DEAD_PORT), '-j', 'DROP'])
    const { key, chain } = await certificateOf(victim.root, { identity: identityOf('stranger') })
    const tls = () => victim.tls({ key, cert: chain })
    const member = async () => new RawPeer(await tls()).hello()
    const midway = async (socket: Socket) => {
      socket.write(Buffer.alloc(100_000))
      await once(socket, 'data')
      abort(socket)
    }
    const phases: Record<string, () => Promise<void>> = {
      'the tunnel port, at once': async () => abort(await victim.tcp(server.ip, 15008)),
      'half a TLS hello': async () => {
        const socket = await victim.tcp(server.ip, 15008)
        socket.write(Buffer.from('160301020001000001fc0303', 'hex'), () => abort(socket))
      },
      'a TLS handshake': async () => abort(await tls()),
      'a preface': async () => abort((await member()).socket),
      'a tunnel that is asked for': async () => {
        const peer = (await member()).connect(1, `${server.ip}:${DEAD_PORT}`)
        await peer.pong()
        abort(peer.socket)
      },
      'a tunnel under way': async () => {
        const peer = (await member()).connect(1, `${server.ip}:${APP_PORT}`)
        await peer.status(1)
        peer.send(data(1, Buffer.alloc(50_000)))
        await peer.frame(({ type }) => type === FRAME.data)
        abort(peer.socket)
      },
      'captured on the way out, at once': async () => abort(await victim.tcp(server.ip, APP_PORT, client)),
      'captured on the way out, to nobody': async () => abort(await victim.tcp(server.ip, DEAD_PORT, client)),
      'captured on the way out, midway': async () => midway(await victim.tcp(server.ip, APP_PORT, client)),
      'captured on the way in, at once': async () => abort(await victim.tcp(server.ip, APP_PORT, stranger)),
      'captured on the way in, midway': async () => midway(await victim.tcp(server.ip, APP_PORT, stranger)),
    }
    await rounds(Object.values(phases), 20, 1) // what is made once is made now
    const idle = (await victim.settled(Infinity)).descriptors
    const before = await victim.settled(idle)
    for (const [phase, attack] of Object.entries(phases)) {
      // A handshake costs the attacker as much as the agent: fewer of those.
      await rounds([attack], 20, /TLS|preface|tunnel that|tunnel under/.test(phase) ? 3 : 10)
      await victim.unharmed()
      const after = await victim.settled(before.descriptors + POOLED)
      t.ok(after.descriptors <= before.descriptors + POOLED, `${phase}: ${after.descriptors} descriptors`)
      t.strictSame(await victim.open(), [], 'and nothing on the books')
    }
    const after = await victim.measure()
    t.ok(
      after.heldBytes < before.heldBytes + 13 * MIB,
      `${mib(after.heldBytes - before.heldBytes)} more held`,
    )
    t.ok(
      after.rssBytes < before.rssBytes + 200 * MIB,
      `${mib(after.rssBytes - before.rssBytes)} more resident`,
    )
  },
)

await t.test('a peer whose bytes nobody takes costs no more than its window', async t => {
  // Nobody gives up while the bytes come, however long that takes.
  const victim = await Victim.start(t, { patienceMs: 60_000 })
  const { server } = victim
  inPod(server, 'iptables', ['-A', 'INPUT', '-p', 'tcp', '--dport', String(DEAD_PORT), '-j', 'DROP'])
  await serve(t, server, 9090, socket => socket.pause())
  const before = await victim.measure()
  for (const [what, port] of [
    ['an application that does not read', 9090],
    ['a request that has no answer yet', DEAD_PORT],
  ] as const) {
    const peer = new RawPeer(await victim.member()).hello().connect(1, `${server.ip}:${port}`)
    if (port === 9090) await peer.status(1)
    // Kernel buffers take some of it; the stream's window is 4 MiB.
    await peer.flood(repeat(data(1, Buffer.of(7)), 500_000))
    await peer.pong()
    const held = (await victim.measure()).heldBytes - before.heldBytes
    t.ok(held < 5 * MIB, `${what}: ${mib(held)} held for half a million frames of one byte`)
    await victim.unharmed()
    peer.socket.destroy()
    await victim.settled(before.descriptors)
  }
})

await t.test('frames that never end are not waited for in memory', async t => {
  const victim = await Victim.start(t)
  const before = await victim.measure()
  const { key, chain } = await certificateOf(victim.root, { identity: identityOf('stranger') })
  const unknown = frame(0xbb, 0, 0, Buffer.alloc(MIB)).subarray(0, MIB - 1)
  const headers = frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.alloc(100_000)).subarray(0, 90_000)
  for (let at = 0; at < 40; at++) {
    const peer = new RawPeer(await victim.tls({ key, cert: chain })).hello()
    await peer.pong()
    await peer.flood(at % 2 === 0 ? unknown : headers)
  }
  await victim.serves()
  const held = (await victim.measure()).heldBytes - before.heldBytes
  t.ok(held < 20 * MIB, `${mib(held)} held for 40 sessions`)
  await victim.unharmed()
})

await t.test('a peer that does not read is not written to without end', async t => {
  const victim = await Victim.start(t)
  await serve(t, victim.server, 9090, socket => {
    const more = () => {
      while (socket.write(Buffer.alloc(64 * 1024)));
    }
    socket.on('drain', more)
    more()
  })
  const before = await victim.measure()
  const socket = await victim.member()
  const peer = new RawPeer(socket).hello([SETTING.initialWindowSize, 0x7fff_ffff])
  peer.send(windowUpdate(0, 0x7fff_0000)).connect(1, `${victim.server.ip}:9090`)
  await peer.frame(({ type }) => type === FRAME.data)
  socket.pause()
  // Time for a sender that knows no bound: each good connection is a few round trips.
  for (let round = 0; round < 30; round++) await victim.serves()
  const held = (await victim.measure()).heldBytes - before.heldBytes
  t.ok(held < 20 * MIB, `${mib(held)} held`)
  await victim.unharmed()
})

await t.test('a pod has as many connections as it may, and the others are not touched', async t => {
  const victim = await Victim.start(t, { maxConnections: 50 })
  const { client, server, stranger } = victim
  const open: Socket[] = []
  for (const from of [client, stranger]) {
    // One in the clear holds two descriptors of the pod that it comes to.
    const most = from === client ? 50 : 25
    for (let at = 0; at < most; at++) open.push(await victim.tcp(server.ip, APP_PORT, from))
    t.equal(await failureFrom(t, from, server.ip, APP_PORT), 'ECONNRESET', `one more from ${from.name}`)
    const over = await victim.record(({ errorCode }) => errorCode === 'TOO_MANY_CONNECTIONS')
    t.match(over, { reason: 'unreachable', error: /too many connections open/ })
    victim.records.length = 0
    if (from === client) {
      // The server's pod is full, so that its tunnel port says no; a pod of its own has room.
      const peer = new RawPeer(await victim.member()).hello().connect(1, `${server.ip}:${APP_PORT}`)
      t.equal(await peer.status(1), 503)
      abort(peer.socket)
    }
    for (const socket of open.splice(0)) abort(socket)
    await victim.settled(Infinity)
  }
  await victim.unharmed()
})

await t.test('streams opened and reset in the same breath', async t => {
  const victim = await Victim.start(t)
  const before = await victim.measure()
  const streams = (encoder: HpackEncoder, first: number, count: number) => {
    const frames: Buffer[] = []
    for (let streamId = first; streamId < first + 2 * count; streamId += 2) {
      const fields = [
        [':method', 'CONNECT'],
        [':authority', `${victim.server.ip}:${APP_PORT}`],
      ] as const
      frames.push(frame(FRAME.headers, FLAG.endHeaders, streamId, encoder.encode(fields)), rst(streamId, 8))
    }
    return Buffer.concat(frames)
  }
  const some = new RawPeer(await victim.member()).hello()
  const encoder = new HpackEncoder()
  for (let round = 0; round < 10; round++) {
    await some.flood(streams(encoder, 1 + 2000 * round, 1000))
    await victim.serves()
  }
  await some.pong()
  t.notOk(some.isClosed, '10,000 are an honest burst: the session lives')
  await victim.unharmed()
  some.socket.destroy()
  const after = await victim.settled(before.descriptors)
  t.ok(after.descriptors <= before.descriptors)
  t.ok(after.heldBytes < before.heldBytes + 20 * MIB, `${mib(after.heldBytes - before.heldBytes)} more held`)
})

/** So many of each at a time, so many times. */
async function rounds(
  attacks: readonly (() => Promise<void>)[],
  width: number,
  times: number,
): Promise<void> {
  for (const attack of attacks)
    for (let round = 0; round < times; round++)
      // An abort may overtake the news that the connection stands.
      await Promise.allSettled(Array.from({ length: width }, attack))
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`
}
