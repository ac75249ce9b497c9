import t from 'tap'
import { HbonePool } from '../../agent/hbone/pool.ts'
import { CODE, FLAG, FRAME, SETTING } from '../../agent/hbone/protocol.ts'
import { data, rst, settings } from '../helpers/raw-peer.ts'
import { TARGET, accept, probeClient, probeServer, verdict } from '../helpers/foreign-session.ts'
import { Receiver } from '../helpers/tunnel.ts'

await t.test('§5.1.1 streams of the client are odd and rise; gaps are allowed', async t => {
  const { peer, requests } = await probeServer(t)
  for (const id of [1, 3, 9, 1001, 0x7fff_ffff]) {
    peer.connect(id, TARGET)
    t.equal(await peer.status(id), 200, `stream ${id}`)
  }
  t.equal(requests.length, 5)
})

await t.test('§5.1.1 an even stream is the server’s to open, and no client’s', async t => {
  for (const id of [2, 4, 1000]) {
    const probe = await probeServer(t)
    probe.peer.connect(id, TARGET)
    t.equal(await verdict(probe), 'connection error PROTOCOL_ERROR', `stream ${id}`)
  }
})

await t.test('§5.1.1 a server opens no streams: it may not promise, and so none is ever idle on', async t => {
  for (const id of [2, 4, 3, 0x7fff_fffe]) {
    const probe = await probeClient(t)
    probe.peer.headers(id, [[':status', '200']])
    t.equal(await verdict(probe), 'connection error PROTOCOL_ERROR', `stream ${id}`)
  }
})

await t.test(
  '§5.1.1 a stream below one that was opened is closed: its headers are read for the table’s sake and dropped',
  async t => {
    const probe = await probeServer(t)
    const { peer, requests } = probe
    peer.connect(9, TARGET)
    // The name goes into the table by a block that is dropped, and is used by the next.
    peer.connect(3, TARGET, [['x-name', 'in the table']])
    t.equal(await verdict(probe), 'passes', 'nothing is said: it may have been reset before')
    peer.connect(11, TARGET, [['x-name', 'in the table']])
    t.equal(await peer.status(11), 200)
    t.strictSame(
      requests.map(({ tunnel }) => tunnel.id),
      [9, 11],
    )
    t.equal(requests[1]!.headers.get('x-name'), 'in the table')
  },
)

await t.test('§5.1.1 a stream that has ended is not opened a second time', async t => {
  const probe = await probeServer(t, {
    onConnect: request => {
      accept(request)
      request.tunnel.end()
    },
  })
  const { peer, requests } = probe
  peer.connect(1, TARGET).send(data(1, Buffer.alloc(0), FLAG.endStream))
  await peer.pong()
  const since = peer.frames.length
  peer.connect(1, TARGET)
  t.equal(await verdict(probe, since), 'passes')
  t.equal(requests.length, 1)
})

await t.test('§5.1.1 our client uses odd streams in order, and none twice', async t => {
  const { session, peer } = await probeClient(t)
  for (let at = 0; at < 5; at++) session.connect(TARGET, []).catch(() => undefined)
  peer.send(rst(3, CODE.refusedStream))
  await peer.pong()
  session.connect(TARGET, []).catch(() => undefined)
  await peer.frame(({ streamId }) => streamId === 11)
  const ids = peer.frames.filter(({ type }) => type === FRAME.headers).map(({ streamId }) => streamId)
  t.strictSame(ids, [1, 3, 5, 7, 9, 11])
})

for (const limit of [1, 7])
  await t.test(
    `§5.1.2 our server takes as many streams as it announced (${limit}), and refuses the next`,
    async t => {
      const probe = await probeServer(t, { session: { maxConcurrentStreams: limit } })
      const { peer, session, requests } = probe
      const announced = await peer.frame(({ type }) => type === FRAME.settings)
      t.match(announced.payload.subarray(0, 6), Buffer.of(0, SETTING.maxConcurrentStreams, 0, 0, 0, limit))
      const last = 2 * limit - 1
      for (let id = 1; id <= last; id += 2) peer.connect(id, TARGET)
      t.equal(await peer.status(last), 200)
      peer.connect(last + 2, TARGET)
      t.equal(await peer.resetCode(last + 2), CODE.refusedStream)
      t.equal(requests.length, limit, 'the application never hears of it')
      // Half-closed streams count, closed ones do not.
      peer.send(data(1, Buffer.alloc(0), FLAG.endStream)).connect(last + 4, TARGET)
      t.equal(await peer.resetCode(last + 4), CODE.refusedStream)
      requests[0]!.tunnel.end()
      await peer.pong()
      peer.connect(last + 6, TARGET)
      t.equal(await peer.status(last + 6), 200)
      t.equal(session.openStreams, limit)
    },
  )

await t.test('§5.1.2 our client keeps to the server’s limit, as it rises, falls and comes back', async t => {
  const { session, peer } = await probeClient(t, { settings: [[SETTING.maxConcurrentStreams, 2]] })
  const room = async (limit?: number): Promise<number> => {
    if (limit !== undefined) peer.send(settings([SETTING.maxConcurrentStreams, limit]))
    await peer.pong()
    return session.capacity(100)
  }
  t.equal(await room(), 2)
  for (let at = 0; at < 2; at++) session.connect(TARGET, []).catch(() => undefined)
  t.equal(await room(), 0)
  t.equal(await room(5), 3, 'raised')
  t.ok((await room(1)) <= 0, 'lowered below what is open: those go on, no other is opened')
  t.equal(session.openStreams, 2)
  peer.headers(1, [[':status', '200']])
  peer.send(rst(3, CODE.cancel))
  t.ok((await room()) <= 0, 'one is open, and one is allowed')
  t.equal(await room(0xffff_ffff), 99, 'no limit but ours')
})

await t.test('§5.1.2 a server that allows 0 streams is waited for, and used once it allows some', async t => {
  const pool = new HbonePool({ maxStreams: 10, idleMs: 60_000, impatienceMs: 60_000 })
  t.teardown(() => pool.destroy())
  const { session, peer } = await probeClient(t, { settings: [[SETTING.maxConcurrentStreams, 0]] })
  t.ok(session.isShut)
  const never = new AbortController().signal
  let taken = 0
  const waiting = [1, 2, 3].map(async () => {
    const got = await pool.acquire('peer', () => Promise.resolve(session), never)
    taken++
    return got
  })
  await peer.pong()
  t.equal(taken, 0)
  peer.send(settings([SETTING.maxConcurrentStreams, 2]))
  await Promise.race(waiting)
  await peer.pong()
  t.equal(taken, 2)
  // Allowed none again, in the middle: what is open goes on, and the third waits.
  session.reserved -= 2
  const opening = session.connect(TARGET, [])
  peer.send(settings([SETTING.maxConcurrentStreams, 0])).headers(1, [[':status', '200']])
  const { tunnel } = await opening
  const received = new Receiver(tunnel)
  peer.send(data(1, Buffer.from('goes on')))
  t.equal((await received.until(7)).toString(), 'goes on')
  t.equal(taken, 2)
  peer.send(settings([SETTING.maxConcurrentStreams, 0xffff_ffff]))
  t.equal((await Promise.all(waiting)).length, 3)
})

await t.test('§5.4.2, §6.4 a RST_STREAM is never answered by one, and ends one stream alone', async t => {
  const ends: unknown[] = []
  const probe = await probeServer(t, {
    onConnect: request => void accept(request).ended.then(end => ends.push(end)),
  })
  const { peer, session } = probe
  peer.connect(1, TARGET).connect(3, TARGET)
  await peer.status(3)
  const since = peer.frames.length
  peer.send(rst(1, CODE.connectError), rst(1, CODE.connectError), rst(1, CODE.noError))
  t.equal(await verdict(probe, since), 'passes')
  t.match(ends, [{ name: 'StreamResetError', h2Code: CODE.connectError, byPeer: true }])
  t.equal(session.openStreams, 1)
})

await t.test('§5.4.2 after our RST_STREAM nothing more is sent on the stream, whatever comes', async t => {
  const { peer, requests } = await probeServer(t)
  peer.connect(1, TARGET)
  await peer.status(1)
  requests[0]!.tunnel.reset(CODE.cancel)
  await peer.resetCode(1)
  const since = peer.frames.length
  requests[0]!.tunnel.write(Buffer.from('late'))
  requests[0]!.tunnel.end()
  peer.send(data(1, Buffer.alloc(5000)), data(1, Buffer.alloc(0), FLAG.endStream))
  await peer.pong()
  t.strictSame(
    peer.frames.slice(since).filter(({ streamId }) => streamId === 1),
    [],
  )
})

await t.test(
  '§7 a refused stream may be tried elsewhere, one that was reset in any other way may not',
  async t => {
    for (const code of [...Object.values(CODE), 0x1234, 0xffff_ffff]) {
      const { session, peer } = await probeClient(t)
      const opening = session.connect(TARGET, [])
      await peer.frame(({ type }) => type === FRAME.headers)
      peer.send(rst(1, code))
      const error: unknown = await opening.catch((err: unknown) => err)
      t.match(error, { h2Code: code, byPeer: true, isRetryable: code === CODE.refusedStream })
    }
  },
)
