/** What our outbound session must be able to do with a foreign server. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import { CODE, codeName } from '../../agent/hbone/protocol.ts'
import { PORT } from '../../agent/ports.ts'
import { ForeignPeer } from './foreign-peer.ts'
import { collect, MIB, sha256, STALL_BYTES, STRANGER, type Abilities } from './foreign-suite.ts'
import { certificateFor, meshPair } from './mesh-pair.ts'
import { connectFrom } from './pods.ts'

/** The foreign peer is the server: it stands on 15008 of a pod, and an application of ours calls that pod. */
export async function foreignServer(t: Test, can: Abilities): Promise<void> {
  const mesh = await meshPair(t)
  const { client, old, root } = mesh
  const certificate = await certificateFor(root, STRANGER)
  client.route = ({ ip, port }) => {
    const via = { kind: 'hbone', port: PORT.hbone, identities: [STRANGER] } as const
    return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: { workload: 'stranger' }, via }] }
  }
  const peer = await ForeignPeer.start(t, can.kind, {
    pod: old,
    certificate,
    address: `${old.ip}:${PORT.hbone}`,
    role: 'server',
    maxStreams: 60,
  })
  let last = 0
  /** One at a time: the peer numbers streams as they come. What it is to do with the bytes it hears before they come. */
  const call = async (...first: ('echo' | 'pause')[]): Promise<{ id: number; app: Socket }> => {
    const app = await connectFrom(t, client, old.ip, 80)
    const id = ++last
    const { authority } = await peer.next('request', id)
    if (authority !== `${old.ip}:80`) throw new Error(`asked for ${authority}`)
    for (const op of first) peer.do({ op, id })
    peer.do({ op: 'answer', id, status: 200 })
    return { id, app }
  }

  await t.test('1 MiB goes there and comes back', async t => {
    const { id, app } = await call('echo')
    const bytes = randomBytes(MIB)
    app.end(bytes)
    t.ok((await collect(app)).equals(bytes))
    t.equal((await peer.next('end', id)).sha256, sha256(bytes))
    const record = await client.record(({ bytesSent }) => bytesSent === MIB)
    t.match(record, { reason: 'mtls', bytesReceived: MIB, error: undefined })
  })

  await t.test('the application ends its half, the server answers afterwards', async t => {
    const { id, app } = await call()
    const bytes = randomBytes(MIB)
    const collecting = collect(app)
    app.end(bytes)
    t.equal((await peer.next('end', id)).sha256, sha256(bytes))
    peer.do({ op: 'send', id, bytes: MIB })
    peer.do({ op: 'end', id })
    t.equal(sha256(await collecting), (await peer.next('sent', id)).sha256)
  })

  if (can.halfClosesFirst)
    await t.test('the server ends its half, the application speaks afterwards', async t => {
      const { id, app } = await call()
      peer.do({ op: 'send', id, bytes: MIB })
      peer.do({ op: 'end', id })
      t.equal(sha256(await collect(app)), (await peer.next('sent', id)).sha256)
      const bytes = randomBytes(MIB)
      app.end(bytes)
      t.equal((await peer.next('end', id)).sha256, sha256(bytes))
    })

  await t.test('the application’s reset is a RST_STREAM for the server', async t => {
    const { id, app } = await call()
    app.write('some')
    await peer.next('data', id)
    app.resetAndDestroy()
    const { code } = await peer.next('reset', id)
    if (can.seesCode) t.equal(code, CODE.connectError)
  })

  await t.test('the server’s reset is a reset for the application', async t => {
    const { id, app } = await call()
    peer.do({ op: 'send', id, bytes: 1000 })
    await once(app, 'data')
    const failed = once(app, 'error')
    peer.do({ op: 'reset', id, code: CODE.connectError })
    t.match(await failed, [{ code: 'ECONNRESET' }])
    t.match(await client.record(({ error }) => /stream reset by peer/.test(error ?? '')), {
      reason: 'mtls',
      errorCode: codeName(can.resetsWith.server),
    })
  })

  await t.test('a hundred streams at once, on as many sessions as the server’s limit asks for', async t => {
    const sockets = await Promise.all(Array.from({ length: 100 }, () => connectFrom(t, client, old.ip, 80)))
    const bytes = sockets.map((_, at) => randomBytes(20_000 + at))
    const received = sockets.map(socket => collect(socket))
    for (const [at, socket] of sockets.entries()) socket.end(bytes[at]!)
    for (let at = 0; at < 100; at++) {
      const id = ++last
      await peer.next('request', id)
      peer.do({ op: 'echo', id })
      peer.do({ op: 'answer', id, status: 200 })
    }
    let same = 0
    for (const [at, got] of (await Promise.all(received)).entries()) if (got.equals(bytes[at]!)) same++
    t.equal(same, 100)
    const { counters } = client.plane.counters()
    const least = can.limitsStreams ? 2 : 1
    t.ok(counters['hbone_sessions']! >= least, `${counters['hbone_sessions']} sessions, of 60 streams each`)
  })

  await t.test('a server that stops reading stops its application, and no other stream', async t => {
    const { id, app } = await call('pause')
    const bytes = randomBytes(STALL_BYTES)
    let isTaken = false
    app.end(bytes, () => (isTaken = true))
    if (can.stallsAlone) await echoes(t, (await call('echo')).app)
    else (await call()).app.resetAndDestroy()
    t.notOk(isTaken, 'the application waits')
    peer.do({ op: 'resume', id })
    t.equal((await peer.next('end', id)).sha256, sha256(bytes))
    peer.do({ op: 'end', id })
  })

  await t.test('an application that stops reading stops the server, and no other stream', async t => {
    const { id, app } = await call()
    peer.do({ op: 'send', id, bytes: STALL_BYTES })
    peer.do({ op: 'end', id })
    await echoes(t, (await call('echo')).app)
    t.notOk(peer.has('sent', id), 'it waits for a window')
    app.end()
    t.equal(sha256(await collect(app)), (await peer.next('sent', id)).sha256)
  })

  await t.test(
    'what the server refuses is a reset for the application, with the status in the record',
    async t => {
      for (const [status, reason] of [
        [503, 'unreachable'],
        [401, 'policy'],
        [404, 'unreachable'],
      ] as const) {
        const app = await connectFrom(t, client, old.ip, 80)
        const failed = once(app, 'error')
        app.resume()
        const id = ++last
        await peer.next('request', id)
        peer.do({ op: 'answer', id, status })
        t.match(await failed, [{ code: 'ECONNRESET' }], String(status))
        const fits = new RegExp(`answered ${status}`)
        t.match(await client.record(({ error }) => fits.test(error ?? '')), { reason })
      }
    },
  )

  await t.test(
    'after the server’s GOAWAY streams go on to their end, and new ones find another session',
    async t => {
      const { app } = await call('echo')
      app.write('before')
      await once(app, 'data')
      peer.do({ op: 'goaway' })
      // How long a GOAWAY is under way nobody can say: calls are made until one is on a session of its own.
      await echoes(t, (await call('echo')).app)
      const bytes = randomBytes(MIB)
      const collecting = collect(app)
      app.end(bytes)
      t.ok((await collecting).equals(bytes))
      await echoes(t, (await call('echo')).app)
    },
  )
}

async function echoes(t: Test, app: Socket): Promise<void> {
  const bytes = randomBytes(MIB)
  app.end(bytes)
  t.ok((await collect(app)).equals(bytes), 'another stream is carried meanwhile')
}
