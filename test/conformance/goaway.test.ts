import t from 'tap'
import { CODE, FLAG, FRAME, MAX_WINDOW } from '../../agent/hbone/protocol.ts'
import { data, frame, uint32, type RawPeer } from '../helpers/raw-peer.ts'
import { TARGET, accept, probeClient, probeServer } from '../helpers/foreign-session.ts'
import { Receiver } from '../helpers/tunnel.ts'

const goaway = (lastStreamId: number, code: number = CODE.noError, debug = ''): Buffer =>
  frame(FRAME.goaway, 0, 0, Buffer.concat([uint32(lastStreamId), uint32(code), Buffer.from(debug)]))

const goaways = (peer: RawPeer) =>
  peer.frames
    .filter(({ type }) => type === FRAME.goaway)
    .map(({ payload }) => [payload.readUInt32BE(), payload.readUInt32BE(4)])

/** Both frames of our graceful GOAWAY: the second comes when the PING after the first is answered. */
async function bothSteps(peer: RawPeer): Promise<void> {
  const { payload } = await peer.frame(({ type, flags }) => type === FRAME.ping && flags === 0)
  peer.send(frame(FRAME.ping, FLAG.ack, 0, payload))
  await peer.frame(({ type, payload: last }) => type === FRAME.goaway && last.readUInt32BE() !== MAX_WINDOW)
}

await t.test(
  '§6.8 our server says goodbye in two steps, and takes what was under way between them',
  async t => {
    const { session, peer, ended } = await probeServer(t)
    peer.connect(1, TARGET)
    await peer.status(1)
    session.goaway()
    await peer.frame(({ type }) => type === FRAME.goaway)
    peer.connect(3, TARGET) // sent before the client has read the first
    t.equal(await peer.status(3), 200)
    await bothSteps(peer)
    t.strictSame(goaways(peer), [
      [MAX_WINDOW, CODE.noError],
      [3, CODE.noError],
    ])
    peer.connect(5, TARGET)
    t.equal(
      await peer.resetCode(5),
      CODE.refusedStream,
      'past the second: not looked at, may be tried elsewhere',
    )
    t.equal(session.openStreams, 2)
    for (const id of [1, 3]) peer.send(data(id, Buffer.from('last words'), FLAG.endStream))
    await peer.pong()
    t.notOk(session.isClosed, 'our side of both is still open')
    session.destroy()
    await ended
  },
)

await t.test(
  '§6.8 streams that are open go on to their end after our GOAWAY, then the connection ends',
  async t => {
    const received: Receiver[] = []
    const { session, peer, requests, ended } = await probeServer(t, {
      onConnect: request => received.push(accept(request)),
    })
    peer.connect(1, TARGET).connect(3, TARGET)
    await peer.status(3)
    session.goaway()
    await bothSteps(peer)
    peer.send(data(1, Buffer.from('up')), data(3, Buffer.alloc(100_000)))
    t.equal((await received[0]!.until(2)).toString(), 'up')
    await received[1]!.until(100_000)
    for (const [at, { tunnel }] of requests.entries()) {
      tunnel.write(Buffer.from('down'))
      tunnel.end()
      peer.send(data(1 + 2 * at, Buffer.alloc(0), FLAG.endStream))
      t.equal(await received[at]!.ended, 'end')
    }
    t.equal(await ended, undefined, 'in order')
    await peer.closed()
  },
)

await t.test('§6.8 with no stream open our GOAWAY is the end', async t => {
  const { session, peer, ended } = await probeServer(t)
  await peer.pong()
  session.goaway()
  t.equal(await ended, undefined)
  await peer.closed()
  t.equal(goaways(peer)[0]?.[1], CODE.noError)
})

await t.test('§6.8 said twice, it is sent once', async t => {
  const { session, peer } = await probeServer(t)
  peer.connect(1, TARGET)
  await peer.status(1)
  session.goaway()
  session.goaway()
  await bothSteps(peer)
  session.goaway()
  await peer.pong()
  t.equal(goaways(peer).length, 2)
})

await t.test('§6.8 our client ends in the same way: open tunnels go on, no other is opened', async t => {
  const { session, peer, ended } = await probeClient(t)
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  peer.headers(1, [[':status', '200']])
  const { tunnel } = await opening
  const received = new Receiver(tunnel)
  session.goaway()
  t.equal(session.capacity(100), 0)
  await bothSteps(peer)
  t.strictSame(goaways(peer).at(-1), [0, CODE.noError], 'a server has no streams')
  peer.send(data(1, Buffer.from('answer'), FLAG.endStream))
  t.equal(await received.ended, 'end')
  tunnel.end()
  t.equal(await ended, undefined)
})

for (const code of [CODE.noError, CODE.internalError, CODE.enhanceYourCalm, 0x7777])
  await t.test(
    `§6.8 a server’s GOAWAY with code ${code}: streams to its last one go on, later ones may be tried elsewhere`,
    async t => {
      const { session, peer, ended } = await probeClient(t)
      const openings = [1, 3, 5, 7].map(() => session.connect(TARGET, []))
      await peer.frame(({ streamId }) => streamId === 7)
      peer.headers(1, [[':status', '200']])
      const { tunnel } = await openings[0]!
      const received = new Receiver(tunnel)
      peer.send(goaway(3, code, 'because'))
      for (const late of [openings[2]!, openings[3]!])
        t.match(await late.catch((err: unknown) => err), {
          name: 'StreamResetError',
          h2Code: code,
          isRetryable: true,
          message: /because/,
        })
      t.equal(session.capacity(100), 0)
      t.match(await session.connect(TARGET, []).catch((err: unknown) => err), { isRetryable: true })
      t.notOk(session.isClosed)
      peer.headers(3, [[':status', '200']]) // asked before, answered after
      const { tunnel: second } = await openings[1]!
      const gets = new Receiver(second)
      peer.send(data(1, Buffer.alloc(50_000), FLAG.endStream), data(3, Buffer.from('x'), FLAG.endStream))
      t.equal(await received.ended, 'end')
      t.equal(received.bytes, 50_000)
      t.equal(await gets.ended, 'end')
      tunnel.write(Buffer.from('still writing'))
      tunnel.end()
      second.end()
      t.equal(await ended, undefined, 'closed in order after the last')
    },
  )

await t.test('§6.8 a server’s GOAWAY in two steps resets nothing at the first', async t => {
  const { session, peer } = await probeClient(t)
  const openings = [1, 3].map(() => session.connect(TARGET, []))
  await peer.frame(({ streamId }) => streamId === 3)
  peer.send(goaway(MAX_WINDOW))
  await peer.pong()
  t.equal(session.openStreams, 2)
  peer.headers(1, [[':status', '200']]).send(goaway(1))
  t.equal((await openings[0]!).response.status, 200)
  t.match(await openings[1]!.catch((err: unknown) => err), { isRetryable: true })
})

await t.test('§6.8 a last stream that rises again brings back nothing', async t => {
  const { session, peer } = await probeClient(t)
  const openings = [1, 3].map(() => session.connect(TARGET, []))
  await peer.frame(({ streamId }) => streamId === 3)
  peer.send(goaway(1), goaway(MAX_WINDOW)).headers(3, [[':status', '200']])
  t.match(await openings[1]!.catch((err: unknown) => err), { isRetryable: true })
  await peer.pong()
  t.equal(session.openStreams, 1)
  openings[0]!.catch(() => undefined)
})

await t.test('§6.8 GOAWAY of everything, with all that was asked for, ends the session at once', async t => {
  const { session, peer, ended } = await probeClient(t)
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  peer.send(goaway(0))
  t.match(await opening.catch((err: unknown) => err), { isRetryable: true })
  t.equal(await ended, undefined)
})

await t.test('§6.8 a client’s GOAWAY leaves its own streams as they are', async t => {
  const received: Receiver[] = []
  const { session, peer, requests, ended } = await probeServer(t, {
    onConnect: request => received.push(accept(request)),
  })
  peer.connect(1, TARGET)
  await peer.status(1)
  peer.send(goaway(0, CODE.noError), data(1, Buffer.from('more')))
  t.equal((await received[0]!.until(4)).toString(), 'more')
  t.notOk(session.isClosed)
  requests[0]!.tunnel.end()
  peer.send(data(1, Buffer.alloc(0), FLAG.endStream))
  t.equal(await ended, undefined)
})

await t.test('§6.8 what a GOAWAY says besides is cut and cleaned before it is repeated', async t => {
  const { session, peer } = await probeClient(t)
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  peer.send(goaway(0, CODE.noError, `\u001b[31m${'x'.repeat(10_000)}`))
  const { message } = (await opening.catch((err: unknown) => err)) as Error
  t.ok(message.length < 400, `${message.length} characters`)
  t.notMatch(message, /\p{C}/u)
  t.ok(session.isClosed)
})
