import t from 'tap'
import type { FromWorker } from '../../../agent/worker/messages.ts'
import { Outbox } from '../../../agent/worker/outbox.ts'

const record = (id: number): FromWorker => ({ type: 'closed', id }) as unknown as FromWorker
const opened = (id: number): FromWorker => ({ type: 'opened', id }) as unknown as FromWorker
const question = (id: number): FromWorker => ({ type: 'ask', id }) as unknown as FromWorker

function outbox() {
  const posted: FromWorker[] = []
  const watchers = new Set<() => void>()
  const box = new Outbox(message => {
    posted.push(message)
    for (const watch of watchers) watch()
  })
  const next = () => new Promise<void>(resolve => watchers.add(resolve))
  const all = () => posted.flatMap(each => (each.type === 'several' ? each.messages : [each]))
  return { box, posted, next, all }
}

await t.test('what is waited for goes at once', async t => {
  const { box, posted } = outbox()
  box.send(question(1))
  box.send(question(2))
  t.strictSame(posted, [question(1), question(2)])
})

await t.test('records are gathered for a moment and leave together, in order', async t => {
  const { box, posted, next } = outbox()
  for (const message of [opened(1), opened(2), record(1)]) box.send(message)
  t.strictSame(posted, [])
  await next()
  t.strictSame(posted, [{ type: 'several', messages: [opened(1), opened(2), record(1)] }])
})

await t.test('one record is a message like any other, and the next ones wait anew', async t => {
  const { box, posted, next } = outbox()
  box.send(record(1))
  await next()
  box.send(record(2))
  t.strictSame(posted, [record(1)])
  await next()
  t.strictSame(posted, [record(1), record(2)])
})

await t.test('what is waited for takes along what was said before it', async t => {
  const { box, posted, all } = outbox()
  box.send(opened(1))
  box.send(record(1))
  box.send(question(1))
  box.send(question(2))
  t.equal(posted.length, 2)
  t.strictSame(all(), [opened(1), record(1), question(1), question(2)])
  await new Promise(resolve => setTimeout(resolve, 40))
  t.equal(posted.length, 2, 'nothing is left for later')
})

await t.test('so many do not wait, and none is lost', async t => {
  const { box, posted, next, all } = outbox()
  const sent = Array.from({ length: 1300 }, (_, id) => record(id))
  for (const message of sent) box.send(message)
  t.ok(posted.length >= 2)
  await next()
  t.strictSame(all(), sent)
})
