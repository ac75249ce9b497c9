import { randomBytes } from 'node:crypto'
import t from 'tap'
import { CODE, StreamResetError } from '../../../agent/hbone/protocol.ts'
import { Receiver, sessionPair, tunnelPair } from '../../helpers/tunnel.ts'

await t.test(
  'a CONNECT reaches the server with its authority and headers, and 200 opens the tunnel',
  async t => {
    const { client, next } = await sessionPair(t)
    const opening = client.connect('10.1.2.3:8080', [['forwarded', 'for="10.0.0.9:4000"']])
    const request = await next()
    t.equal(request.method, 'CONNECT')
    t.equal(request.authority, '10.1.2.3:8080')
    t.equal(request.headers.get('forwarded'), 'for="10.0.0.9:4000"')
    request.respond(200, [['baggage', 'a=b']])
    const { response } = await opening
    t.equal(response.status, 200)
    t.equal(response.headers.get('baggage'), 'a=b')
  },
)

await t.test('a refusal carries its status and leaves no stream behind', async t => {
  const { client, server, next } = await sessionPair(t)
  const opening = client.connect('10.1.2.3:8080', [])
  const request = await next()
  request.respond(401)
  const { response } = await opening
  t.equal(response.status, 401)
  await new Promise<void>(resolve => client.ping(() => resolve()))
  t.equal(client.openStreams, 0)
  t.equal(server.openStreams, 0)
})

await t.test('bytes arrive whole in both directions, with frames split as windows and sizes ask', async t => {
  for (const size of [1, 4095, 4097, 70_000, 9_000_000]) {
    const { near, far } = await tunnelPair(t)
    const up = randomBytes(size)
    const down = randomBytes(size)
    const farGets = new Receiver(far)
    const nearGets = new Receiver(near)
    near.write(up)
    far.write(down)
    near.end()
    far.end()
    t.equal(await farGets.ended, 'end')
    t.equal(await nearGets.ended, 'end')
    t.ok(Buffer.concat(farGets.chunks).equals(up), `${size} bytes up`)
    t.ok(Buffer.concat(nearGets.chunks).equals(down), `${size} bytes down`)
    t.ok(near.isClosed && far.isClosed)
  }
})

await t.test('a half-close leaves the other direction open', async t => {
  const { near, far } = await tunnelPair(t)
  const farGets = new Receiver(far)
  const nearGets = new Receiver(near)
  near.write(Buffer.from('request'))
  near.end()
  t.equal(await farGets.ended, 'end')
  t.notOk(far.isClosed)
  far.write(Buffer.from('late reply'))
  t.equal((await nearGets.until(10)).toString(), 'late reply')
  far.end()
  t.equal(await nearGets.ended, 'end')
})

await t.test('a reset crosses with its code, in both directions', async t => {
  for (const side of ['near', 'far'] as const) {
    const pair = await tunnelPair(t)
    const other = side === 'near' ? pair.far : pair.near
    const gets = new Receiver(other)
    take(pair[side])
    pair[side].reset(CODE.connectError)
    const end = await gets.ended
    t.type(end, StreamResetError)
    t.match(end, { h2Code: CODE.connectError, byPeer: true })
    t.notOk(pair.client.isClosed, 'the session lives')
  }
})

await t.test(
  'a writer is told to pause when the receiver takes nothing, and to go on when it does',
  async t => {
    const { near, far } = await tunnelPair(t, { streamWindow: 65_535, connectionWindow: 1_000_000 })
    const gets = new Receiver(far, { credit: false })
    const nearGets = new Receiver(near)
    const drained = new Promise<void>(resolve => (nearGets.onDrain = resolve))
    t.equal(near.write(Buffer.alloc(65_535)), true, 'fits the window')
    t.equal(near.write(Buffer.alloc(1000)), false, 'does not fit')
    await gets.until(65_535)
    t.equal(near.pendingBytes, 1000)
    far.consumed(65_535)
    await drained
    await gets.until(66_535)
    t.equal(near.pendingBytes, 0)
  },
)

await t.test('a stalled stream does not stop another on the same session', async t => {
  const { client, next } = await sessionPair(t, { streamWindow: 65_535, connectionWindow: 262_140 })
  const open = async () => {
    const opening = client.connect('10.0.0.1:80', [])
    const request = await next()
    request.respond(200)
    return { near: (await opening).tunnel, far: request.tunnel }
  }
  const stalled = await open()
  const lively = await open()
  take(stalled.far, { credit: false })
  take(stalled.near)
  take(lively.near)
  const gets = new Receiver(lively.far)
  stalled.near.write(Buffer.alloc(200_000))
  const bytes = randomBytes(2_000_000)
  lively.near.write(bytes)
  t.ok((await gets.until(bytes.length)).equals(bytes))
})

await t.test('streams over the limit are refused and may be tried elsewhere', async t => {
  const { client, next } = await sessionPair(t, { maxConcurrentStreams: 1 })
  const first = client.connect('10.0.0.1:80', [])
  await next()
  const second = client.connect('10.0.0.1:81', [])
  t.match(await second.catch((err: unknown) => err), { h2Code: CODE.refusedStream, isRetryable: true })
  t.equal(client.capacity(100), 0)
  void first.catch(() => undefined)
})

await t.test('a graceful GOAWAY lets open streams finish and closes the session after the last', async t => {
  const { client, server, near, far } = await tunnelPair(t)
  const gets = new Receiver(near)
  take(far)
  server.goaway()
  await new Promise<void>(resolve => client.ping(() => resolve()))
  t.equal(client.capacity(100), 0, 'no new streams')
  t.notOk(near.isClosed)
  far.write(Buffer.from('still here'))
  await gets.until(10)
  const closed = new Promise(resolve => client.onClosed(resolve))
  far.end()
  near.end()
  t.equal(await closed, undefined, 'closed in order')
  t.match(await client.connect('10.0.0.1:80', []).catch((err: unknown) => err), { isRetryable: true })
})

await t.test('when the connection is lost every open stream is reset, none is ended', async t => {
  const { client, near, far, server } = await tunnelPair(t)
  const gets = new Receiver(near)
  take(far)
  server.transport.destroy()
  t.match(await gets.ended, { name: 'StreamResetError', byPeer: true })
  t.ok(client.isClosed)
})

await t.test('20,000 resets on one session do not end it', async t => {
  const { client, server, next, requests } = await sessionPair(t)
  for (let round = 0; round < 200; round++) {
    const aborts: Promise<unknown>[] = []
    for (let stream = 0; stream < 100; stream++) {
      const abort = new AbortController()
      const opening = client.connect('10.0.0.1:80', [], abort.signal)
      abort.abort(new Error('gave up'))
      aborts.push(opening.catch(() => undefined))
    }
    await Promise.all(aborts)
    await new Promise<void>(resolve => client.ping(() => resolve()))
    requests.length = 0
  }
  t.notOk(client.isClosed)
  t.notOk(server.isClosed)
  t.equal(server.openStreams, 0)
  void next
})

/** Receives what comes and does nothing with it. */
function take(...args: ConstructorParameters<typeof Receiver>): Receiver {
  return new Receiver(...args)
}
