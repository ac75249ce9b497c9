import t from 'tap'
import type { FromWorker } from '../../../agent/worker/messages.ts'
import { Outbox } from '../../../agent/worker/outbox.ts'
import type { Counted } from '../../../agent/worker/traffic.ts'
import { Connection, ConnectionBook } from '../../../agent/proxy/connection.ts'
import type { LogLevel } from '../../../lib/log-level.ts'
import { connectionRecord } from '../../helpers/records.ts'

const question = (id: number): FromWorker => ({
  type: 'route',
  id,
  question: { podUid: 'pod-1', ip: '10.0.0.1', port: 80 },
})

function outbox(level: LogLevel = 'info') {
  const posted: FromWorker[] = []
  const watchers = new Set<() => void>()
  const box = new Outbox({ level, fields: { node: 'a' } }, message => {
    posted.push(structuredClone(message))
    for (const watch of watchers) watch()
  })
  const next = () => new Promise<void>(resolve => watchers.add(resolve))
  const all = () => posted.flatMap(each => (each.type === 'several' ? each.messages : [each]))
  /** What each message says, in short. */
  const said = () => all().map(each => (each.type === 'access-log' ? linesOf(each.writes) : each.type))
  return { box, posted, next, all, said }
}

const linesOf = (writes: readonly string[]) => writes.join('').split('\n').length - 1
const closedCount = (messages: readonly FromWorker[]) =>
  messages
    .flatMap(each => (each.type === 'traffic' ? each.report.changes : []))
    .reduce((sum, { closed }) => sum + closed, 0)

await t.test('what is waited for goes at once', t => {
  const { box, posted } = outbox()
  box.send(question(1))
  box.send(question(2))
  t.strictSame(posted, [question(1), question(2)])
  t.end()
})

await t.test('connections are gathered for a moment and leave together, as sums and as lines', async t => {
  const { box, posted, next, said, all } = outbox()
  for (let id = 0; id < 100; id++) {
    const connection: Counted = connectionRecord({ id })
    box.opened(connection)
    box.closed(connection)
  }
  t.strictSame(posted, [])
  await next()
  t.equal(posted.length, 1)
  t.strictSame(said(), ['traffic', 100])
  t.match(all()[0], {
    report: {
      changes: [{ id: 1, labels: { flag: '-' }, opened: 100, closed: 100, sent: 200_000, open: 0 }],
      reasons: [{ direction: 'outbound', word: 'mtls', count: 100 }],
      errors: [],
    },
  })
})

await t.test('a level at which no line is written leaves the sums alone; it can be changed', async t => {
  const { box, posted, next, said } = outbox('warn')
  box.closed(connectionRecord())
  await next()
  t.equal(posted.length, 1)
  t.equal(posted[0]!.type, 'traffic')
  box.logLevel = 'info'
  box.closed(connectionRecord())
  await next()
  t.strictSame(said(), ['traffic', 'traffic', 1])
})

await t.test('what is waited for takes along what was counted before it, and nothing is left', async t => {
  const { box, posted, said } = outbox()
  box.closed(connectionRecord())
  box.send(question(1))
  box.send(question(2))
  t.equal(posted.length, 2)
  t.strictSame(said(), ['traffic', 1, 'route', 'route'])
  await new Promise(resolve => setTimeout(resolve, 70))
  t.equal(posted.length, 2)
})

await t.test('so much does not wait, and nothing is lost', async t => {
  const { box, posted, next, all, said } = outbox()
  for (let id = 0; id < 1300; id++) box.closed(connectionRecord({ id }))
  t.ok(posted.length >= 2, 'lines')
  await next()
  t.equal(closedCount(all()), 1300)
  t.equal(
    said().reduce<number>((sum, each) => sum + (typeof each === 'number' ? each : 0), 0),
    1300,
  )

  const quiet = outbox('silent')
  for (let id = 0; id < 1300; id++)
    quiet.box.closed(connectionRecord({ id, source: { ip: '10.0.0.1', port: 1, workload: `w${id}` } }))
  t.equal(quiet.posted.length, 2, 'series')
  await quiet.next()
  t.equal(closedCount(quiet.all()), 1300)
})

await t.test('series that are let go are told with the next message', t => {
  const { box, posted } = outbox('silent')
  box.closed(connectionRecord())
  box.send(question(1))
  box.tidy()
  box.send(question(2))
  t.match(posted[1], { type: 'several', messages: [{ report: { changes: [], forgotten: [1] } }, {}] })
  t.end()
})

await t.test('a connection of the data plane is counted as it is told of', async t => {
  const { box, next, all } = outbox('silent')
  const book = new ConnectionBook(box)
  const { source, destination } = connectionRecord()
  const connection = book.open({ podUid: 'pod-1', direction: 'outbound', source, destination })
  t.type(connection, Connection)
  t.equal(connection.record().reason, 'unreachable')
  connection.established('mtls')
  t.ok(connection.series)
  connection.toDestination = 10
  connection.fromDestination = 20
  connection.close({ reason: 'unreachable', error: 'tunnel lost', errorCode: 'ECONNRESET' })
  connection.close()
  t.notOk(connection.series, 'nothing is held')
  t.match(connection.record(), { reason: 'mtls', bytesSent: 10, bytesReceived: 20, error: 'tunnel lost' })
  const refused = book.open({ podUid: 'pod-1', direction: 'outbound', source, destination })
  refused.close({ reason: 'policy', error: 'no' })
  await next()
  const [traffic] = all()
  t.match(traffic, {
    report: {
      changes: [
        { labels: { flag: '-' }, opened: 1, closed: 1, failed: 1, received: 10, sent: 20, open: 0 },
        { labels: { flag: 'DENY', isMutual: false }, opened: 1, closed: 1, failed: 1, open: 0 },
      ],
      reasons: [
        { word: 'mtls', count: 1 },
        { word: 'policy', count: 1 },
      ],
      errors: [
        { word: 'ECONNRESET', count: 1 },
        { word: undefined, count: 1 },
      ],
    },
  })
})
