import t, { type Test } from 'tap'
import type { ClientSession } from '../../../agent/hbone/client.ts'
import { HbonePool, type PoolOptions } from '../../../agent/hbone/pool.ts'
import type { SessionOptions } from '../../../agent/hbone/limits.ts'
import { sessionPair, type SessionPair } from '../../helpers/tunnel.ts'

const OPTIONS: PoolOptions = { maxStreams: 2, idleMs: 60_000, impatienceMs: 20 }

/** Opens real sessions and remembers them. */
function opener(
  t: Test,
  options: Partial<SessionOptions> = {},
): { open: () => Promise<ClientSession>; pairs: SessionPair[] } {
  const pairs: SessionPair[] = []
  const open = async () => {
    const pair = await sessionPair(t, options)
    pairs.push(pair)
    return pair.client
  }
  return { open, pairs }
}

const never = new AbortController().signal

/** Opens a stream on a session that was acquired, and answers it. */
async function use(pool: HbonePool, open: () => Promise<ClientSession>, pairs: SessionPair[]) {
  const session = await pool.acquire('peer', open, never)
  session.reserved--
  const opening = session.connect('10.0.0.1:80', [])
  const pair = pairs.find(({ client }) => client === session)!
  const request = await pair.next()
  request.respond(200)
  const { tunnel } = await opening
  return { session, tunnel, far: request.tunnel }
}

await t.test('connections to one peer share a session until it is full, then another is opened', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open, pairs } = opener(t)
  const first = await use(pool, open, pairs)
  const second = await use(pool, open, pairs)
  const third = await use(pool, open, pairs)
  t.equal(first.session, second.session)
  t.not(first.session, third.session)
  t.equal(pool.sessionCount, 2)
})

await t.test('many at once open as many sessions as they need and no more', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open, pairs } = opener(t)
  await Promise.all(Array.from({ length: 8 }, () => use(pool, open, pairs)))
  t.ok(pairs.length >= 4 && pairs.length <= 6, `${pairs.length} sessions`)
})

await t.test("the peer's own limit of streams is kept", async t => {
  const pool = new HbonePool({ ...OPTIONS, maxStreams: 100 })
  const { open, pairs } = opener(t, { maxConcurrentStreams: 1 })
  const first = await use(pool, open, pairs)
  const second = await use(pool, open, pairs)
  t.not(first.session, second.session)
})

await t.test('an attempt that hangs holds up nobody', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open, pairs } = opener(t)
  let calls = 0
  const flaky = () => (++calls === 1 ? new Promise<ClientSession>(() => undefined) : open())
  const { session } = await use(pool, flaky, pairs)
  t.equal(calls, 2)
  t.notOk(session.isClosed)
})

await t.test(
  'a peer that comes back after a while gets a few sessions, not one for each that has waited',
  async t => {
    const pool = new HbonePool({ ...OPTIONS, maxStreams: 100 })
    const { open, pairs } = opener(t)
    const isBack = Promise.withResolvers<void>()
    let calls = 0
    const slow = async () => {
      calls++
      await isBack.promise
      return open()
    }
    const waiting = Array.from({ length: 50 }, () => use(pool, slow, pairs))
    await new Promise<void>(resolve => {
      const look = setInterval(() => {
        if (calls < 2) return
        clearInterval(look)
        resolve()
      }, 5)
    })
    isBack.resolve()
    await Promise.all(waiting)
    t.ok(calls <= 4, `${calls} attempts`)
    t.ok(pool.sessionCount <= 4, `${pool.sessionCount} sessions`)
  },
)

await t.test('when no attempt succeeds everyone who waits is told why', async t => {
  const pool = new HbonePool(OPTIONS)
  const open = () => Promise.reject(new Error('nobody there'))
  await t.rejects(pool.acquire('peer', open, never), { message: 'nobody there' })
  t.equal(pool.sessionCount, 0)
})

await t.test('a connection that is given up stops waiting with its reason', async t => {
  const pool = new HbonePool(OPTIONS)
  const abort = new AbortController()
  const waiting = pool.acquire('peer', () => new Promise<ClientSession>(() => undefined), abort.signal)
  abort.abort(new Error('gave up'))
  await t.rejects(waiting, { message: 'gave up' })
})

await t.test('a session that the peer is closing is not used again', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open, pairs } = opener(t)
  const first = await use(pool, open, pairs)
  pairs[0]!.server.goaway()
  await new Promise<void>(resolve => first.session.ping(() => resolve()))
  const second = await use(pool, open, pairs)
  t.not(first.session, second.session)
  t.notOk(first.tunnel.isClosed, 'what is open goes on')
})

await t.test('an idle session is closed in order, and a used one is not', async t => {
  const pool = new HbonePool({ ...OPTIONS, idleMs: 10 })
  const { open, pairs } = opener(t)
  const { session, tunnel, far } = await use(pool, open, pairs)
  const closed = new Promise(resolve => session.onClosed(resolve))
  tunnel.end()
  far.end()
  t.equal(await closed, undefined)
  t.equal(pool.sessionCount, 0)
})

await t.test('after goaway the pool gives out nothing', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open } = opener(t)
  pool.goaway()
  await t.rejects(pool.acquire('peer', open, never), { code: 'CLOSED' })
})
