/** What a foreign client must be able to do with our inbound listener. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import { CODE, codeName } from '../../agent/hbone/protocol.ts'
import { PORT } from '../../agent/ports.ts'
import { errorText } from '../../lib/errors.ts'
import { ForeignPeer } from './foreign-peer.ts'
import { collect, MIB, sha256, STALL_BYTES, STRANGER, type Abilities } from './foreign-suite.ts'
import { certificateFor, meshPair } from './mesh-pair.ts'
import { serve } from './pods.ts'

/** Applications in the server pod, one a port. */
const APP = { echo: 7000, answersLater: 7001, speaksFirst: 7002, resets: 7003, held: 7004, closed: 7005 }

function echo(socket: Socket): void {
  socket.on('data', chunk => socket.write(chunk) || socket.pause())
  socket.on('drain', () => socket.resume())
  socket.on('end', () => socket.end())
}

/** The foreign peer is the client: our listener on 15008, the applications behind it. */
export async function foreignClient(t: Test, can: Abilities): Promise<void> {
  const mesh = await meshPair(t)
  const { server, old, root } = mesh
  const calls = new Map<number, ((socket: Socket) => void)[]>()
  const nextCall = (port: number): Promise<Socket> =>
    new Promise(resolve => calls.set(port, [...(calls.get(port) ?? []), resolve]))
  await serve(t, server, APP.echo, echo)
  for (const port of [APP.answersLater, APP.speaksFirst, APP.resets, APP.held])
    await serve(t, server, port, socket => calls.get(port)?.shift()?.(socket))
  const certificate = await certificateFor(root, STRANGER)
  const address = `${server.ip}:${PORT.hbone}`
  const peer = await ForeignPeer.start(t, can.kind, { pod: old, certificate, address, role: 'client' })
  let last = 0
  const connect = async (port: number): Promise<number> => {
    const id = ++last
    peer.do({ op: 'connect', id, authority: `${server.ip}:${port}` })
    const { status } = await peer.next('status', id)
    if (status !== 200) throw new Error(`answered ${status}`)
    return id
  }

  /** Go takes a request to the old session when the GOAWAY is under way, and cannot take its body back: it is a new request's. */
  const connectAfterGoaway = async (port: number): Promise<number> => {
    for (let left = 5; ; left--)
      try {
        return await connect(port)
      } catch (error) {
        if (left === 0 || can.seesGoaway || !errorText(error).includes('cannot rewind body')) throw error
      }
  }

  await t.test('1 MiB goes there and comes back', async t => {
    const id = await connect(APP.echo)
    peer.do({ op: 'send', id, bytes: MIB })
    peer.do({ op: 'end', id })
    const sent = await peer.next('sent', id)
    const came = await peer.next('end', id)
    t.strictSame([came.bytes, came.sha256], [MIB, sent.sha256])
    const record = await server.record(({ bytesReceived }) => bytesReceived === MIB)
    t.match(record, { reason: 'mtls', bytesSent: MIB, error: undefined, source: { identity: STRANGER } })
  })

  await t.test('the client ends its half, the application answers afterwards', async t => {
    const calling = nextCall(APP.answersLater)
    const id = await connect(APP.answersLater)
    const app = await calling
    peer.do({ op: 'send', id, bytes: MIB })
    peer.do({ op: 'end', id })
    const got = await collect(app)
    t.equal(sha256(got), (await peer.next('sent', id)).sha256)
    const answer = randomBytes(MIB)
    app.end(answer)
    t.equal((await peer.next('end', id)).sha256, sha256(answer))
  })

  await t.test('the application ends its half, the client speaks afterwards', async t => {
    const calling = nextCall(APP.speaksFirst)
    const id = await connect(APP.speaksFirst)
    const app = await calling
    const first = randomBytes(MIB)
    app.end(first)
    t.equal((await peer.next('end', id)).sha256, sha256(first))
    const collecting = collect(app)
    peer.do({ op: 'send', id, bytes: MIB })
    peer.do({ op: 'end', id })
    t.equal(sha256(await collecting), (await peer.next('sent', id)).sha256)
  })

  await t.test('the client’s reset is a reset for the application', async t => {
    const calling = nextCall(APP.resets)
    const id = await connect(APP.resets)
    const app = await calling
    peer.do({ op: 'send', id, bytes: 1000 })
    await once(app, 'data')
    const failed = once(app, 'error')
    peer.do({ op: 'reset', id, code: CODE.connectError })
    t.match(await failed, [{ code: 'ECONNRESET' }])
    t.match(await server.record(({ destination, error }) => destination.port === APP.resets && !!error), {
      error: /stream reset by peer/,
      errorCode: codeName(can.resetsWith.client),
    })
  })

  await t.test('the application’s reset is a RST_STREAM for the client', async t => {
    const calling = nextCall(APP.resets)
    const id = await connect(APP.resets)
    const app = await calling
    app.write('some')
    await peer.next('data', id)
    app.resetAndDestroy()
    t.equal((await peer.next('reset', id)).code, CODE.connectError)
  })

  await t.test('a hundred streams at once, each its own bytes', async t => {
    const ids = await Promise.all(Array.from({ length: 100 }, () => connect(APP.echo)))
    for (const id of ids) peer.do({ op: 'send', id, bytes: 20_000 + id })
    for (const id of ids) peer.do({ op: 'end', id })
    let same = 0
    for (const id of ids) {
      const [sent, came] = [await peer.next('sent', id), await peer.next('end', id)]
      if (came.bytes === 20_000 + id && came.sha256 === sent.sha256) same++
    }
    t.equal(same, 100)
  })

  await t.test('an application that stops reading stops its client, and no other stream', async t => {
    const calling = nextCall(APP.held)
    const id = await connect(APP.held)
    const app = await calling
    peer.do({ op: 'send', id, bytes: STALL_BYTES })
    peer.do({ op: 'end', id })
    const other = await connect(APP.echo)
    peer.do({ op: 'send', id: other, bytes: MIB })
    peer.do({ op: 'end', id: other })
    t.equal((await peer.next('end', other)).bytes, MIB)
    t.notOk(peer.has('sent', id), 'it waits for a window')
    t.equal(sha256(await collect(app)), (await peer.next('sent', id)).sha256)
    app.end()
  })

  await t.test('a client that stops reading stops the application, and no other stream', async t => {
    const calling = nextCall(APP.held)
    const id = await connect(APP.held)
    const app = await calling
    peer.do({ op: 'pause', id })
    const bytes = randomBytes(STALL_BYTES)
    let isTaken = false
    app.end(bytes, () => (isTaken = true))
    const other = await connect(APP.echo)
    peer.do({ op: 'send', id: other, bytes: MIB })
    peer.do({ op: 'end', id: other })
    t.equal((await peer.next('end', other)).bytes, MIB)
    t.notOk(isTaken, 'the application waits')
    peer.do({ op: 'resume', id })
    t.equal((await peer.next('end', id)).sha256, sha256(bytes))
    peer.do({ op: 'end', id })
  })

  await t.test('what is refused is answered with the status that says why', async t => {
    const status = async (authority: string): Promise<number | undefined> => {
      const id = ++last
      peer.do({ op: 'connect', id, authority })
      return (await peer.next('status', id)).status
    }
    t.equal(await status(`${server.ip}:${APP.closed}`), 503, 'nobody listens')
    t.equal(await status(`${old.ip}:${APP.echo}`), 400, 'not this pod’s')
    t.equal(await status('echo.shop.svc:7000'), 400, 'no address')
    server.admit = () => ({ kind: 'refuse', reason: 'policy', detail: 'not allowed', peer: {} })
    server.plane.handle({ type: 'invalidate' })
    t.equal(await status(`${server.ip}:${APP.echo}`), 401, 'policy')
    server.admit = () => ({ kind: 'admit', reason: 'mtls', peer: {} })
    server.plane.handle({ type: 'invalidate' })
    t.equal(await status(`${server.ip}:${APP.echo}`), 200, 'and the session lives')
  })

  await t.test(
    'after our GOAWAY streams go on to their end, and new ones have a session of their own',
    async t => {
      const id = await connect(APP.echo)
      peer.do({ op: 'send', id, bytes: 1000 })
      await peer.next('data', id)
      server.plane.handle({ type: 'goaway', podUid: 'uid-server' })
      if (can.seesGoaway) t.equal((await peer.next('goaway')).code, CODE.noError)
      const fresh = await connectAfterGoaway(APP.echo)
      for (const each of [id, fresh]) {
        peer.do({ op: 'send', id: each, bytes: MIB })
        peer.do({ op: 'end', id: each })
      }
      t.equal((await peer.next('end', id)).bytes, 1000 + MIB)
      t.equal((await peer.next('end', fresh)).bytes, MIB)
    },
  )
}
