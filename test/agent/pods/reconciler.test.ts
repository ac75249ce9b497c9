import t from 'tap'
import { Reconciler } from '../../../agent/pods/reconciler.ts'

/** Steps that wait to be told how they end, in the order in which they begin. */
class Taken {
  readonly steps: { wish: string; signal: AbortSignal; end: (err?: Error) => void }[] = []
  readonly failures: unknown[] = []
  readonly reconciler = new Reconciler<string>('first', {
    step: (wish, signal) =>
      new Promise((resolve, reject) => {
        this.steps.push({ wish, signal, end: err => (err ? reject(err) : resolve()) })
        this.#began.resolve()
      }),
    failed: err => this.failures.push(err),
  })
  #began = Promise.withResolvers<void>()

  /** The step of that number, from 0, once it has begun. */
  async step(number: number) {
    while (this.steps.length <= number) {
      await this.#began.promise
      this.#began = Promise.withResolvers()
    }
    return this.steps[number]!
  }
}

/** Whether it is settled by now, without waiting. */
async function isSettled(promise: Promise<void>): Promise<boolean> {
  return Promise.race([promise.then(() => true), new Promise<false>(resolve => setImmediate(resolve, false))])
}

await t.test('nothing is done before something is wanted', async t => {
  const { steps, reconciler } = new Taken()
  t.equal(await isSettled(reconciler.settled), false)
  t.equal(reconciler.wish, 'first')
  t.equal(steps.length, 0)
})

await t.test('it is settled when the step towards what is wanted has ended', async t => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const { wish, end } = await taken.step(0)
  t.strictSame([wish, await isSettled(settled)], ['in', false])
  end()
  await settled
  t.equal(taken.steps.length, 1)
})

await t.test('another wish interrupts the step under way, and the next one is towards it', async t => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const first = await taken.step(0)
  t.equal(taken.reconciler.aim('out'), settled, 'one settling for both')
  t.equal(first.signal.aborted, true)
  t.equal(taken.steps.length, 1, 'the step comes to its end first')
  first.end(new Error('interrupted'))
  const second = await taken.step(1)
  t.strictSame([second.wish, second.signal.aborted, await isSettled(settled)], ['out', false, false])
  t.strictSame(taken.failures, [], 'an interruption is no failure')
  second.end()
  await settled
})

await t.test('a step that ends well all the same is followed by one towards the new wish', async t => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const first = await taken.step(0)
  void taken.reconciler.aim('out')
  first.end()
  ;(await taken.step(1)).end()
  await settled
  t.strictSame(
    taken.steps.map(({ wish }) => wish),
    ['in', 'out'],
  )
})

await t.test('the same wish again is looked at again: something else may have changed', async t => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const first = await taken.step(0)
  void taken.reconciler.aim('in')
  first.end()
  const second = await taken.step(1)
  t.equal(await isSettled(settled), false)
  second.end()
  await settled
})

await t.test('what failed is told and tried again; whoever waits is not kept waiting', async t => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const failure = new Error('not now')
  ;(await taken.step(0)).end(failure)
  await settled
  t.strictSame(taken.failures, [failure])
  const again = await taken.step(1)
  t.equal(again.wish, 'in')
  again.end()
})

await t.test('a new wish is taken up between two tries', async t => {
  const taken = new Taken()
  void taken.reconciler.aim('in')
  for (let tries = 0; tries < 3; tries++) (await taken.step(tries)).end(new Error('not now'))
  void taken.reconciler.aim('out')
  t.equal(taken.steps[2]!.signal.aborted, true)
  const last = await taken.step(3)
  t.equal(last.wish, 'out')
  last.end()
  await taken.reconciler.settled
})

await t.test('a step can say that it is as near as can be, and go on', async () => {
  const taken = new Taken()
  const settled = taken.reconciler.aim('in')
  const { end, signal } = await taken.step(0)
  taken.reconciler.settle(signal)
  await settled
  end()
})

await t.test('what is wanted after that is waited for, and not taken for done', async t => {
  const taken = new Taken()
  void taken.reconciler.aim('in')
  const first = await taken.step(0)
  taken.reconciler.settle(first.signal)
  const settled = taken.reconciler.aim('gone')
  t.equal(await isSettled(settled), false)
  taken.reconciler.settle(first.signal)
  t.equal(await isSettled(settled), false, 'an interrupted step has nothing to say of the next one')
  first.end()
  const second = await taken.step(1)
  t.equal(await isSettled(settled), false)
  second.end()
  await settled
})

await t.test('what is wanted between two tries is waited for too', async t => {
  const taken = new Taken()
  const failing = taken.reconciler.aim('in')
  ;(await taken.step(0)).end(new Error('not now'))
  await failing
  const settled = taken.reconciler.aim('gone')
  t.equal(await isSettled(settled), false)
  ;(await taken.step(1)).end()
  await settled
})
