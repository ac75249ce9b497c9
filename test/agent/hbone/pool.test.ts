import t, { type Test } from 'tap'
import type { ClientSession } from '../../../agent/hbone/client.ts'
import { HbonePool, type PoolOptions } from '../../../agent/hbone/pool.ts'
import { BULK_BYTES, BULK_MS, type SessionOptions } from '../../../agent/hbone/limits.ts'
import { becomes } from '../../helpers/becomes.ts'
import { Receiver, sessionPair, type SessionPair } from '../../helpers/tunnel.ts'

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

await t.test('a session that is used again is not closed before it has been idle as long again', async t => {
  const pool = new HbonePool({ ...OPTIONS, idleMs: 150 })
  const { open, pairs } = opener(t)
  const first = await use(pool, open, pairs)
  const end = async ({ tunnel, far }: typeof first) => {
    const over = new Promise<void>(resolve => tunnel.onClosed(resolve))
    tunnel.end()
    far.end()
    await over
  }
  await end(first)
  const again = await use(pool, open, pairs)
  t.equal(again.session, first.session)
  const closed = new Promise(resolve => again.session.onClosed(resolve))
  await new Promise(resolve => setTimeout(resolve, 200)) // longer than it may be idle, with a stream open
  t.notOk(again.session.isClosed)
  const idleFromMs = performance.now()
  await end(again)
  await closed
  t.ok(performance.now() - idleFromMs >= 149)
})

await t.test('after goaway the pool gives out nothing', async t => {
  const pool = new HbonePool(OPTIONS)
  const { open } = opener(t)
  pool.goaway()
  await t.rejects(pool.acquire('peer', open, never), { code: 'CLOSED' })
})

/** Opens a stream, and has it carry so much that its session counts as busy with bulk. */
async function useInBulk(pool: HbonePool, open: () => Promise<ClientSession>, pairs: SessionPair[]) {
  const used = await use(pool, open, pairs)
  const receiver = new Receiver(used.tunnel)
  used.far.write(Buffer.alloc(BULK_BYTES + 1))
  await receiver.until(BULK_BYTES + 1)
  return used
}

/** Nobody shares because a machine is busy. */
const ROOMY: PoolOptions = { ...OPTIONS, maxStreams: 100, impatienceMs: 60_000 }

await t.test('a session that carries bulk is left to it, and others get one of their own', async t => {
  const pool = new HbonePool(ROOMY)
  const { open, pairs } = opener(t)
  const bulk = await useInBulk(pool, open, pairs)
  t.ok(bulk.session.isBulky)
  const small = await use(pool, open, pairs)
  const another = await use(pool, open, pairs)
  t.not(small.session, bulk.session)
  t.equal(another.session, small.session)
  t.equal(pool.sessionCount, 2)
})

await t.test('bulk in the other direction counts as much', async t => {
  const pool = new HbonePool(ROOMY)
  const { open, pairs } = opener(t)
  const bulk = await use(pool, open, pairs)
  const receiver = new Receiver(bulk.far)
  const payload = Buffer.alloc(9 + 16_384)
  for (let sent = 0; sent <= BULK_BYTES; sent += 16_384) {
    await becomes(() => bulk.tunnel.room >= 16_384)
    bulk.tunnel.sendInPlace(payload, 16_384)
  }
  await receiver.until(BULK_BYTES)
  t.not((await use(pool, open, pairs)).session, bulk.session)
})

await t.test('there are four for bulk at most: then the one with the fewest streams is shared', async t => {
  const pool = new HbonePool(ROOMY)
  const { open, pairs } = opener(t)
  const busy = []
  for (let opened = 0; opened < 4; opened++) busy.push(await useInBulk(pool, open, pairs))
  t.equal(new Set(busy.map(({ session }) => session)).size, 4)
  const more = []
  for (let opened = 0; opened < 4; opened++) more.push(await use(pool, open, pairs))
  t.equal(pool.sessionCount, 4)
  t.equal(new Set(more.map(({ session }) => session)).size, 4, 'one more for each')
})

await t.test('who has waited for a second session for a while shares the first', async t => {
  const pool = new HbonePool({ ...ROOMY, impatienceMs: OPTIONS.impatienceMs })
  const { open, pairs } = opener(t)
  const bulk = await useInBulk(pool, open, pairs)
  let calls = 0
  const hang = () => {
    calls++
    return new Promise<ClientSession>(() => undefined)
  }
  const small = await use(pool, hang, pairs)
  t.equal(small.session, bulk.session)
  t.equal(calls, 1)
})

await t.test('when a second session cannot be had the first is shared at once', async t => {
  const pool = new HbonePool(ROOMY)
  const { open, pairs } = opener(t)
  const bulk = await useInBulk(pool, open, pairs)
  const refuse = () => Promise.reject(new Error('no more'))
  const [one, other] = await Promise.all([use(pool, refuse, pairs), use(pool, refuse, pairs)])
  t.equal(one.session, bulk.session)
  t.equal(other.session, bulk.session)
  t.equal(pool.sessionCount, 1)
})

await t.test('once the bulk is over the session is everyone’s again', async t => {
  const pool = new HbonePool(ROOMY)
  const { open, pairs } = opener(t)
  const bulk = await useInBulk(pool, open, pairs)
  const real = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => real() + BULK_MS })
  t.notOk(bulk.session.isBulky)
  t.equal((await use(pool, open, pairs)).session, bulk.session)
})
