import t from 'tap'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import { keepMemorySmall, ownMemory, type MemoryOptions } from '../../lib/memory.ts'

interface Given {
  readonly msg: string
  readonly fromBytes: number
  readonly toBytes: number
}

/** Runs until the test ends; `heard` gives each line as an event. */
function keeper(t: { teardown(work: () => Promise<void>): void }, options: Omit<MemoryOptions, 'log'>) {
  const lines: Given[] = []
  const heard = new Writable({
    write(chunk: Buffer, _, done) {
      lines.push(JSON.parse(chunk.toString()) as Given)
      heard.emit('line')
      done()
    },
  })
  const stop = new AbortController()
  const running = keepMemorySmall({ log: pino({ level: 'debug' }, heard), ...options }, stop.signal)
  t.teardown(async () => {
    stop.abort()
    await running
  })
  return { lines, heard, stop, running }
}

await t.test('an idle process gives back what it does not use', async t => {
  let waste: unknown[] | undefined = Array.from({ length: 1_000_000 }, (_, at) => ({
    at,
    text: `number ${at}`,
  }))
  t.equal(waste.length, 1_000_000)
  waste = undefined
  const { lines, heard } = keeper(t, { lookEveryMs: 10, idleBelow: 100, worthBytes: 1 })
  await once(heard, 'line')
  const [{ msg, fromBytes, toBytes }] = lines as [Given]
  t.equal(msg, 'gave memory back')
  t.ok(toBytes < fromBytes - 30_000_000, `${fromBytes} bytes before, ${toBytes} after`)
})

await t.test('a busy process is left alone, and so is one that has not grown', async t => {
  const busy = keeper(t, { lookEveryMs: 1, idleBelow: -1, worthBytes: 1 })
  const never = { worthBytes: 2 ** 40, longIdleWorthBytes: 2 ** 40 }
  const small = keeper(t, { lookEveryMs: 1, idleBelow: 100, ...never })
  const other = keeper(t, { lookEveryMs: 100, idleBelow: 100, worthBytes: 1 })
  await once(other.heard, 'line')
  t.same([busy.lines, small.lines], [[], []])
})

await t.test('one that has been idle for long gives back less, too', async t => {
  const options = { lookEveryMs: 5, worthBytes: 2 ** 40, longIdleWorthBytes: 1 }
  const idle = keeper(t, { ...options, idleBelow: 100 })
  const busy = keeper(t, { ...options, idleBelow: -1 })
  await once(idle.heard, 'line')
  t.same(busy.lines, [])
})

await t.test('pages of programs are given back alone, by one that has been idle for long', async t => {
  const given = Promise.withResolvers<void>()
  const never = { worthBytes: 2 ** 40, longIdleWorthBytes: 2 ** 40 }
  const { lines } = keeper(t, {
    lookEveryMs: 5,
    idleBelow: 100,
    ...never,
    worthFileBytes: 0,
    release: given.resolve,
  })
  await given.promise
  t.same(lines, [], 'heaps are left as they are')
})

await t.test('it rests after it has given back, however much is used again', async t => {
  const resting = keeper(t, { lookEveryMs: 1, idleBelow: 100, worthBytes: 1 })
  await once(resting.heard, 'line')
  const kept = Array.from({ length: 500_000 }, (_, at) => ({ at }))
  const other = keeper(t, { lookEveryMs: 100, idleBelow: 100, worthBytes: 1 })
  await once(other.heard, 'line')
  t.equal(resting.lines.length, 1)
  t.equal(kept.length, 500_000)
})

await t.test('it ends with its signal', async t => {
  const { stop, running, lines } = keeper(t, { lookEveryMs: 60_000 })
  stop.abort()
  await running
  t.same(lines, [])
})

await t.test('memory of the process alone is told apart from that of files', async t => {
  const before = ownMemory()
  const block = Buffer.alloc(32 * 1024 * 1024, 1)
  const grown = ownMemory() - before
  t.ok(grown > 0.9 * block.length, `grew by ${grown} bytes`)
  t.ok(ownMemory() < process.memoryUsage.rss())
})
