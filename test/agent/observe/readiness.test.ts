import t from 'tap'
import { MetricsServer } from '../../../agent/observe/metrics-server.ts'
import { Readiness, ReadinessServer } from '../../../agent/observe/readiness.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const never = new AbortController().signal

await t.test('nothing holds it up: ready', async t => {
  const readiness = new Readiness()
  t.ok(readiness.isReady())
  await readiness.ready(never)
})

await t.test('the probe names what is waited for, and is ready once nothing is', async t => {
  const readiness = new Readiness()
  const discovery = readiness.block('discovery')
  let socket = 'no socket'
  const pods = readiness.block(() => `pod source: ${socket}`)
  const server = new ReadinessServer({ readiness, log: quietLog().log, port: 0 })
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${await server.start()}/healthz/ready`
  const probe = async () => {
    const answer = await fetch(url)
    return [answer.status, await answer.text()]
  }
  t.strictSame(await probe(), [503, 'not ready, waiting for: discovery, pod source: no socket\n'])
  const ready = readiness.ready(never)
  discovery()
  discovery()
  socket = 'no answer'
  t.strictSame(await probe(), [503, 'not ready, waiting for: pod source: no answer\n'])
  pods()
  await ready
  t.strictSame(await probe(), [200, 'ready\n'])
  const draining = readiness.block('draining')
  t.strictSame(await probe(), [503, 'not ready, waiting for: draining\n'])
  draining()
  t.equal((await fetch(url, { method: 'POST' })).status, 405)
})

await t.test('the same name twice is one name, and both must end', async t => {
  const readiness = new Readiness()
  const first = readiness.block('worker')
  const second = readiness.block('worker')
  t.strictSame(readiness.pending(), ['worker'])
  first()
  first()
  t.notOk(readiness.isReady())
  second()
  t.ok(readiness.isReady())
})

await t.test('waiting ends when its signal aborts', async t => {
  const readiness = new Readiness()
  readiness.block('discovery')
  const cancel = new AbortController()
  const waiting = t.rejects(readiness.ready(cancel.signal), { message: 'enough' })
  cancel.abort(new Error('enough'))
  await waiting
})

await t.test(
  'metrics are served under both names, compressed when asked, to several at one port',
  async t => {
    const metrics = {
      contentType: 'text/plain; version=0.0.4; charset=utf-8',
      text: async () => 'a 1\n'.repeat(1000),
    }
    const { log } = quietLog()
    const first = new MetricsServer({ metrics, log, port: 0 })
    t.teardown(() => first.close())
    const port = await first.start()
    for (const path of ['/metrics', '/stats/prometheus']) {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
        headers: { 'accept-encoding': 'gzip' },
      })
      t.equal(answer.headers.get('content-type'), metrics.contentType)
      t.equal(answer.headers.get('content-encoding'), 'gzip')
      t.equal(await answer.text(), 'a 1\n'.repeat(1000))
    }
    const second = new MetricsServer({ metrics, log, port })
    t.teardown(() => second.close())
    t.equal(await second.start(), port)
  },
)
