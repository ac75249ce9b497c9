import t from 'tap'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { collectGarbage } from '../../lib/garbage.ts'

// Keeps nothing of two million short strings; says so, then waits to be ended.
const WASTEFUL = `
  const { parentPort } = require('node:worker_threads')
  let last = []
  for (let at = 0; at < 2e6; at++) { if (at % 1e5 === 0) last = []; last.push('number ' + at) }
  last = undefined
  parentPort.postMessage('ready')
  setInterval(() => undefined, 60_000)`

await t.test('every thread of the process is collected, and its heap shrinks', async t => {
  const workers = [1, 2].map(() => new Worker(WASTEFUL, { eval: true }))
  t.teardown(() => Promise.all(workers.map(worker => worker.terminate())))
  await Promise.all(workers.map(worker => once(worker, 'message')))
  const heaps = () =>
    Promise.all(workers.map(async worker => (await worker.getHeapStatistics()).total_heap_size))
  const before = await heaps()
  t.ok(await collectGarbage())
  const after = await heaps()
  after.forEach((bytes, at) => t.ok(bytes < before[at]! / 2, `${before[at]} bytes before, ${bytes} after`))
})

await t.test('the collection ends also when a worker does', async t => {
  const worker = new Worker(WASTEFUL, { eval: true })
  await once(worker, 'message')
  const [collected] = await Promise.all([collectGarbage(), worker.terminate()])
  t.ok(collected)
})

await t.test('it can be asked for again, and by several at once', async t => {
  t.same(await Promise.all([collectGarbage(), collectGarbage()]), [true, true])
  t.ok(await collectGarbage())
})
