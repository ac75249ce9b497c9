import t from 'tap'
import { FetchQueue } from '../../../agent/identity/fetch-queue.ts'

/** A queue whose jobs end when the test says so. */
function queueOf(concurrency: number) {
  const running = new Map<string, () => void>()
  const order: string[] = []
  const queue = new FetchQueue<string>({
    concurrency,
    run: item => {
      order.push(item)
      return new Promise(resolve => running.set(item, resolve))
    },
  })
  const finish = async (item: string) => {
    running.get(item)?.()
    running.delete(item)
    await new Promise(setImmediate)
  }
  return { queue, running, order, finish }
}

await t.test('never more at once than allowed, in the order in which they came', async t => {
  const { queue, running, order, finish } = queueOf(2)
  for (const item of ['a', 'b', 'c', 'd']) queue.add(item, true)
  t.strictSame(order, ['a', 'b'])
  await finish('b')
  t.strictSame(order, ['a', 'b', 'c'])
  t.equal(running.size, 2)
})

await t.test('urgent ones pass the patient, which never take the last two places', async t => {
  const { queue, order, finish } = queueOf(3)
  for (const item of ['r1', 'r2', 'r3']) queue.add(item, false)
  t.strictSame(order, ['r1'], 'two places are kept')
  queue.add('new', true)
  t.strictSame(order, ['r1', 'new'])
  await finish('r1')
  t.strictSame(order, ['r1', 'new', 'r2'])
})

await t.test('with a single place, patient ones are still served', async t => {
  const { queue, order, finish } = queueOf(1)
  queue.add('r1', false)
  queue.add('r2', false)
  queue.add('new', true)
  await finish('r1')
  await finish('new')
  t.strictSame(order, ['r1', 'new', 'r2'])
})

await t.test('what is taken out of the line is not served, and nothing stands in it twice', async t => {
  const { queue, order, finish } = queueOf(1)
  queue.add('a', true)
  queue.add('b', true)
  queue.add('c', true)
  queue.add('c', true)
  queue.remove('b')
  await finish('a')
  await finish('c')
  t.strictSame(order, ['a', 'c'])
})
