import t from 'tap'
import { Demand, type DemandOptions } from '../../../agent/mesh/demand.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'

const LIMITS = {
  most: { pending: 20, found: 10, absent: 5 },
  burst: 10,
  perSecond: 100,
  total: 40,
  idleMs: { pending: 1000, found: 10_000, absent: 2000 },
}

function setUp(options: Partial<DemandOptions> = {}) {
  const clock = new FakeClock(1_000_000)
  const told = {
    changed: [] as string[],
    dropped: [] as string[],
    forgotten: [] as string[],
    stale: 0,
    lost: 0,
    asks: 0,
  }
  const demand = new Demand({
    isName: name => /^\/[\d.]+$/.test(name),
    isAnsweredByName: true,
    changed: name => told.changed.push(name),
    dropped: name => told.dropped.push(name),
    stale: () => told.stale++,
    lost: () => told.lost++,
    limits: LIMITS,
    clock,
    ...options,
  })
  demand.attach({ ask: () => told.asks++, forget: name => told.forgotten.push(name) })
  demand.opened()
  const asked = () => demand.take()?.subscribe ?? []
  return { demand, clock, told, asked }
}

const ip = (at: number) => `/10.0.${at >> 8}.${at & 255}`
/** Asks for names from one to the other and gives how many there was room for. */
function scan(demand: Demand, asker: string, from: number, to: number): number {
  let room = 0
  for (let at = from; at < to; at++) if (demand.ask(ip(at), asker)) room++
  return room
}

await t.test('a name is asked for once, and known by its answer from then on', t => {
  const { demand, told, asked } = setUp()
  t.equal(demand.state('/10.0.0.1'), undefined)
  t.ok(demand.ask('/10.0.0.1', 'a') && demand.ask('/10.0.0.1', 'b') && demand.ask('/10.0.0.2', 'b'))
  t.strictSame(demand.take(), { subscribe: ['/10.0.0.1', '/10.0.0.2'], unsubscribe: [] })
  t.equal(demand.take(), undefined)
  t.equal(demand.state('/10.0.0.1'), 'pending')
  t.ok(demand.answer('/10.0.0.1', true) && demand.answer('/10.0.0.2', false))
  t.equal(demand.state('/10.0.0.1'), 'found')
  t.equal(demand.state('/10.0.0.2'), 'absent')
  t.strictSame(told.changed, ['/10.0.0.1', '/10.0.0.2'])
  demand.ask('/10.0.0.1', 'a')
  t.strictSame(asked(), [])
  demand.answer('/10.0.0.1', false)
  t.equal(demand.state('/10.0.0.1'), 'absent', 'it is heard when there is none any more')
  t.strictSame(told.changed, ['/10.0.0.1', '/10.0.0.2', '/10.0.0.1'])
  t.match(demand.counters, { asked: 2, answered: 2 })
  t.end()
})

await t.test(
  'what is no name that could be asked for is a resource; an answer that comes too late is none',
  t => {
    const { demand } = setUp()
    t.ok(demand.answer('/10.0.0.9', true), 'an address that was given up')
    for (const name of ['Kubernetes//Pod/shop/a', 'shop/echo.shop.svc.cluster.local', '/no.address'])
      t.notOk(demand.answer(name, true), name)
    t.end()
  },
)

await t.test(
  'one who tries address after address fills what is its own, and asks no faster than it may',
  t => {
    const { demand, clock, asked } = setUp()
    demand.ask(ip(9999), 'neighbour')
    demand.answer(ip(9999), true)
    asked()
    scan(demand, 'scanner', 0, 15)
    t.equal(asked().length, LIMITS.burst)
    t.equal(scan(demand, 'scanner', 15, 5000), 4985)
    t.strictSame(asked(), [])
    t.strictSame(demand.sizes(), { askedPending: 20, askedFound: 1, askedAbsent: 0 })
    let sent = 0
    for (let ms = 0; ms < 1000; ms += 10) {
      scan(demand, 'scanner', 5000 + ms, 5010 + ms)
      clock.advance(10)
      sent += asked().length
    }
    t.ok(sent > 80 && sent <= 100, `${sent} in a second`)
    t.ok(demand.ask(ip(9998), 'neighbour'))
    t.strictSame(asked(), [ip(9998)], 'the neighbour does not stand in its line')
    t.equal(demand.state(ip(9999)), 'found')
    t.ok(clock.timers <= 1)
    t.end()
  },
)

await t.test(
  'questions that somebody waits for are not given up for others: those are turned away',
  async t => {
    const { demand, told } = setUp()
    const open = Promise.withResolvers<void>()
    const waits: Promise<void>[] = []
    for (let at = 0; at < 20; at++) {
      t.ok(demand.ask(ip(at), 'a'))
      waits.push(demand.hold([ip(at)], open.promise))
    }
    t.notOk(demand.ask(ip(20), 'a'))
    t.equal(demand.state(ip(20)), undefined)
    t.ok(demand.ask(ip(20), 'b'), 'of somebody else they are not')
    demand.sweep()
    t.equal(told.stale, 1, 'what was said without asking is called back')
    demand.sweep()
    t.equal(told.stale, 1)
    open.resolve()
    await Promise.all(waits)
    t.ok(demand.ask(ip(21), 'a'), 'nobody waits for the first one any more')
    t.equal(demand.state(ip(0)), undefined)
  },
)

await t.test('one who asks for what stands in the line of another need not wait for that', t => {
  const { demand, asked } = setUp()
  scan(demand, 'a', 0, 20)
  t.equal(asked().length, 10)
  demand.ask(ip(19), 'b')
  t.strictSame(asked(), [ip(19)])
  demand.ask(ip(18), 'a')
  t.strictSame(asked(), [])
  t.end()
})

await t.test('the line is served in its order as time passes', t => {
  const { demand, clock, asked } = setUp()
  scan(demand, 'a', 0, 16)
  asked()
  clock.advance(20)
  t.strictSame(asked(), [ip(10), ip(11)])
  clock.advance(1000)
  t.strictSame(asked(), [ip(12), ip(13), ip(14), ip(15)])
  t.equal(clock.timers, 0)
  t.end()
})

await t.test('what was used longest ago goes first, those that exist apart from those that do not', t => {
  const { demand, clock, told, asked } = setUp()
  for (let at = 0; at < 30; at++) {
    demand.ask(ip(at), 'a')
    demand.answer(ip(at), at % 2 === 0)
    if (at === 20) demand.ask(ip(2), 'a')
    clock.advance(100)
  }
  t.strictSame(demand.sizes(), { askedPending: 0, askedFound: 10, askedAbsent: 5 })
  const gone = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 0, 4, 6, 8, 10].map(ip).sort()
  t.strictSame([...told.dropped].sort(), gone)
  t.strictSame([...told.forgotten].sort(), gone)
  const news = demand.take()
  t.strictSame([...(news?.unsubscribe ?? [])].sort(), gone)
  t.notOk(news?.subscribe.some(name => gone.includes(name)))
  t.equal(asked().length, 0)
  t.ok(
    gone.every(name => told.changed.lastIndexOf(name) > told.changed.indexOf(name)),
    'answers are called back',
  )
  t.end()
})

await t.test('when there is too much of all, who has most makes room', t => {
  const { demand, clock } = setUp()
  for (const asker of ['a', 'b', 'c'])
    for (let at = 0; at < (asker === 'b' ? 10 : 12); at++) {
      demand.ask(`/${asker}${at}`, asker)
      clock.advance(100)
      if (at < 10) demand.answer(`/${asker}${at}`, true)
    }
  scan(demand, 'd', 0, 7)
  t.strictSame(demand.sizes(), { askedPending: 11, askedFound: 29, askedAbsent: 0 })
  t.equal(demand.state('/a0'), undefined)
  t.equal(demand.state('/b0'), 'found')
  t.end()
})

await t.test('what nobody uses is doubted at half of its time, and given up at its end', t => {
  const { demand, clock, told } = setUp()
  for (const at of [1, 2, 3]) {
    demand.ask(ip(at), 'a')
    if (at < 3) demand.answer(ip(at), at === 1)
  }
  demand.take()
  told.changed.length = 0
  clock.advance(600)
  demand.sweep()
  t.strictSame(told.changed, [ip(3)])
  clock.advance(600)
  demand.sweep()
  t.strictSame(told.changed, [ip(3), ip(2), ip(3)], 'doubted, and the one before dropped')
  t.strictSame(told.dropped, [ip(3)])
  demand.ask(ip(2), 'a')
  clock.advance(1999)
  demand.sweep()
  t.strictSame(told.dropped, [ip(3)], 'it was used')
  clock.advance(1)
  demand.sweep()
  t.strictSame(told.dropped, [ip(3), ip(2)])
  t.equal(demand.state(ip(1)), 'found')
  clock.advance(10_000)
  demand.sweep()
  t.strictSame(demand.take(), { subscribe: [], unsubscribe: [ip(3), ip(2), ip(1)] })
  t.strictSame(demand.sizes(), { askedPending: 0, askedFound: 0, askedAbsent: 0 })
  t.end()
})

await t.test('a stream begins with everything that is wanted, and nothing of it is asked for twice', t => {
  const { demand, told, asked } = setUp()
  demand.ask(ip(1), 'a')
  demand.answer(ip(1), true)
  scan(demand, 'a', 2, 20)
  demand.closed()
  t.equal(told.lost, 1)
  t.notOk(demand.canAsk)
  demand.ask(ip(30), 'a')
  t.strictSame(
    demand.begin().sort(),
    [ip(1), ip(30), ...Array.from({ length: 18 }, (_, at) => ip(at + 2))].sort(),
  )
  t.strictSame(asked(), [])
  t.equal(demand.state(ip(1)), 'found', 'what is known goes on')
  demand.opened()
  demand.ask(ip(31), 'b')
  t.strictSame(asked(), [ip(31)])
  t.end()
})

await t.test('asked for again before it was told that it was given up, it is asked for', t => {
  const { demand, clock } = setUp()
  demand.ask(ip(1), 'a')
  demand.answer(ip(1), false)
  demand.take()
  clock.advance(2000)
  demand.sweep()
  demand.ask(ip(1), 'a')
  t.strictSame(demand.take(), { subscribe: [ip(1)], unsubscribe: [] })
  t.equal(demand.state(ip(1)), 'pending')
  t.end()
})

await t.test('a server that does not answer by name has answered at the end of its response', t => {
  const { demand } = setUp({ isAnsweredByName: false })
  demand.ask(ip(1), 'a')
  demand.ask(ip(2), 'a')
  demand.arrived(ip(1))
  t.equal(demand.state(ip(1)), 'pending')
  demand.applied()
  t.equal(demand.state(ip(1)), 'found')
  t.equal(demand.state(ip(2)), 'pending')
  demand.take()
  demand.letGo('Kubernetes//Pod/shop/a')
  t.strictSame(
    demand.take(),
    { subscribe: [], unsubscribe: ['Kubernetes//Pod/shop/a'] },
    'it follows what it has told of',
  )
  t.end()
})

await t.test('many names go out in several requests', t => {
  const { demand } = setUp({
    limits: { ...LIMITS, most: { pending: 50_000, found: 1, absent: 1 }, burst: 50_000, total: 50_000 },
  })
  scan(demand, 'a', 0, 25_000)
  t.strictSame(
    [1, 2, 3, 4].map(() => demand.take()?.subscribe.length),
    [10_000, 10_000, 5000, undefined],
  )
  t.end()
})
