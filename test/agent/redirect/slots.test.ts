import t from 'tap'
import { Slots, type Line } from '../../../agent/redirect/slots.ts'

function job(slots: Slots, line: Line, log: string[], name: string) {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const done = slots.run(line, () => {
    log.push(name)
    return promise
  })
  return { done, resolve, reject }
}

const turn = () => new Promise(setImmediate)

await t.test('no more than so many run, and the lines are served in turn', async t => {
  const slots = new Slots(1)
  const log: string[] = []
  const first = job(slots, 'write', log, 'first')
  const writes = ['w1', 'w2', 'w3'].map(name => job(slots, 'write', log, name))
  const looks = ['l1', 'l2'].map(name => job(slots, 'look', log, name))
  t.strictSame(log, ['first'])
  for (const { resolve } of [...writes, ...looks, first]) resolve()
  await Promise.all([first, ...writes, ...looks].map(({ done }) => done))
  t.strictSame(log, ['first', 'l1', 'w1', 'l2', 'w2', 'w3'])
})

await t.test('work that fails gives its slot back', async t => {
  const slots = new Slots(2)
  const log: string[] = []
  const jobs = ['a', 'b', 'c'].map(name => job(slots, 'write', log, name))
  jobs[0]!.reject(new Error('no'))
  await t.rejects(jobs[0]!.done, { message: 'no' })
  await turn()
  t.strictSame(log, ['a', 'b', 'c'])
  for (const { resolve } of jobs) resolve()
  await Promise.all(jobs.slice(1).map(({ done }) => done))
  const last = job(slots, 'look', log, 'd')
  t.strictSame(log, ['a', 'b', 'c', 'd'])
  last.resolve()
  await last.done
})
