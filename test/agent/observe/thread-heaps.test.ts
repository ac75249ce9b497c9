import t from 'tap'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { AgentMetrics } from '../../../agent/observe/metrics.ts'
import { ThreadHeaps } from '../../../agent/observe/thread-heaps.ts'

const idle = (name: string) => new Worker('setInterval(() => undefined, 60_000)', { eval: true, name })

await t.test('the heap of each thread is told by its name, for as long as it lives', async t => {
  const heaps = new ThreadHeaps()
  const worker = idle('data-plane-0')
  t.teardown(() => worker.terminate())
  await once(worker, 'online')
  const read = await heaps.read()
  t.same(
    read.map(({ thread }) => thread),
    ['main', 'data-plane-0'],
  )
  for (const { used, total, external } of read) {
    t.ok(used > 0 && used <= total, `${used} of ${total} bytes`)
    t.ok(external >= 0)
  }
  const exited = once(worker, 'exit')
  await worker.terminate()
  await exited
  t.same(
    (await heaps.read()).map(({ thread }) => thread),
    ['main'],
  )
})

await t.test('a thread that ends while it is asked is left out', async t => {
  const heaps = new ThreadHeaps()
  const worker = idle('short-lived')
  await once(worker, 'online')
  const [read] = await Promise.all([heaps.read(), worker.terminate()])
  t.equal(read[0]?.thread, 'main')
})

await t.test('heaps are metrics, and so is what the process alone has resident', async t => {
  const heaps = async () => [{ thread: 'main', used: 10, total: 20, external: 3 }]
  const text = await new AgentMetrics({ version: '1', sources: { heaps } }).text()
  t.match(text, 'culvert_heap_bytes{thread="main",part="used"} 10')
  t.match(text, 'culvert_heap_bytes{thread="main",part="total"} 20')
  t.match(text, 'culvert_heap_bytes{thread="main",part="external"} 3')
  t.match(text, /^culvert_anonymous_memory_bytes [1-9]\d+$/m)
})
