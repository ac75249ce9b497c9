import t, { type Test } from 'tap'
import {
  EventRecorder,
  type EventRecorderOptions,
  type Subject,
} from '../../../ca-server/kubernetes/event-recorder.ts'
import { createMetrics } from '../../../ca-server/metrics.ts'
import { becomes } from '../../helpers/becomes.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { quietLog, type Line } from '../../helpers/quiet-log.ts'
import { StandInApi, type Json } from '../../helpers/stand-in-api.ts'

const MINUTE = 60_000

interface Scene {
  api: StandInApi
  clock: FakeClock
  recorder: EventRecorder
  lines: Line[]
  tell: (pod: string, note?: string, more?: { reason?: string; count?: number }) => void
  /** Ends when so many requests have been answered. */
  answered: (count: number) => Promise<void>
  events: () => Json[]
  told: (result: string) => Promise<number>
}

async function scene(t: Test, options: Partial<EventRecorderOptions> = {}): Promise<Scene> {
  const api = await StandInApi.start(t)
  const clock = new FakeClock(Date.parse('2026-11-28T12:00:00Z'))
  const { log, lines } = quietLog()
  const stopping = new AbortController()
  t.teardown(() => stopping.abort())
  const { events } = createMetrics()
  const recorder = new EventRecorder({
    api: api.client(t),
    instance: 'culvert-ca-0',
    metrics: { events },
    log,
    signal: stopping.signal,
    clock,
    ...options,
  })
  const results = async () => (await events.get()).values
  return {
    api,
    clock,
    recorder,
    lines,
    tell: (pod, note = 'why', { reason = 'EnrolmentPending', count } = {}) =>
      recorder.tell({
        regarding: subject(pod),
        reason,
        action: 'Enrol',
        note,
        ...(count !== undefined && { count }),
      }),
    async answered(count) {
      const done = async () => (await results()).reduce((sum, { value }) => sum + value, 0)
      await becomes(async () => (await done()) >= count)
    },
    events: () => [...api.objects.values()],
    told: async result => (await results()).find(({ labels }) => labels.result === result)?.value ?? 0,
  }
}

function subject(name: string): Subject {
  return { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name, uid: `uid-${name}` }
}

await t.test('an Event is told at once, as kubectl describe looks for it', async t => {
  const { api, tell, answered } = await scene(t)
  tell('one', 'no certificate\u001b[31m yet')
  await answered(1)
  t.match(api.requests, [
    {
      method: 'POST',
      path: '/apis/events.k8s.io/v1/namespaces/shop/events',
      body: {
        metadata: { name: /^one\.[0-9a-f]+$/, namespace: 'shop' },
        eventTime: '2026-11-28T12:00:00.000000Z',
        type: 'Warning',
        reason: 'EnrolmentPending',
        action: 'Enrol',
        note: 'no certificate?[31m yet',
        regarding: subject('one'),
        reportingController: 'culvert.dev/ca-server',
        reportingInstance: 'culvert-ca-0',
        series: undefined,
      },
    },
  ])
})

await t.test('what comes again within five minutes is one series at their end', async t => {
  const { api, clock, tell, answered, events } = await scene(t)
  tell('one')
  await answered(1)
  for (let minute = 0; minute < 4; minute++) {
    clock.advance(MINUTE)
    tell('one')
    tell('one', 'why', { count: 3 })
  }
  t.equal(api.requests.length, 1)
  clock.advance(MINUTE)
  await answered(2)
  t.match(events(), [{ series: { count: 17, lastObservedTime: '2026-11-28T12:05:00.000000Z' } }])
  clock.advance(5 * MINUTE)
  clock.advance(5 * MINUTE)
  t.equal(api.requests.length, 2, 'nothing new, nothing told')
  t.equal(clock.timers, 0, 'and it is forgotten')
  tell('one')
  await answered(3)
  t.equal(events().length, 2)
})

await t.test('another note is another Event, and counts from there', async t => {
  const { clock, tell, answered, events } = await scene(t)
  tell('one', 'first', { count: 2 })
  await answered(1)
  tell('one', 'first')
  tell('one', 'second', { count: 4 })
  clock.advance(5 * MINUTE)
  await answered(2)
  t.match(events(), [
    { note: 'first', series: { count: 2 } },
    { note: 'second', series: { count: 5 } },
  ])
  tell('one', 'second')
  clock.advance(5 * MINUTE)
  await answered(3)
  t.match(events()[1], { note: 'second', series: { count: 6 } })
})

await t.test('other objects and other reasons have their own', async t => {
  const { tell, answered, events } = await scene(t)
  tell('one')
  tell('two')
  tell('one', 'why', { reason: 'RedirectionChanged' })
  await answered(3)
  t.equal(events().length, 3)
})

await t.test('of what belongs to no namespace, Events are in the default one', async t => {
  const { api, recorder, answered } = await scene(t)
  const regarding = { apiVersion: 'v1', kind: 'Node', name: 'node-a', uid: 'uid-a' } as const
  recorder.tell({ regarding, reason: 'NoAgent', action: 'Enrol', note: 'none' })
  await answered(1)
  t.match(api.requests[0], {
    path: '/apis/events.k8s.io/v1/namespaces/default/events',
    body: { metadata: { namespace: 'default' } },
  })
})

await t.test('not more than so many a second are told, whatever happens in the cluster', async t => {
  const { api, clock, tell, answered, told } = await scene(t, { rate: { burst: 5, perSecond: 1 } })
  for (let at = 0; at < 50; at++) tell(`pod-${at}`)
  await answered(50)
  t.equal(api.requests.length, 5)
  t.equal(await told('limited'), 45)
  clock.advance(2000)
  for (let at = 50; at < 60; at++) tell(`pod-${at}`)
  await answered(60)
  t.equal(api.requests.length, 7)
})

await t.test('what could not be told is told at the end of the window, while the window lasts', async t => {
  const { clock, tell, answered, events } = await scene(t, { rate: { burst: 1, perSecond: 1 } })
  tell('one')
  tell('two', 'why', { count: 7 })
  await answered(2)
  t.equal(events().length, 1)
  clock.advance(5 * MINUTE)
  await answered(3)
  t.match(events()[1], { regarding: subject('two'), series: { count: 7 } })
})

await t.test('an API server that is busy is asked again, but not for ever', async t => {
  const { api, clock, tell, answered, told, lines } = await scene(t)
  let isBusy = true
  api.fault = () => (isBusy ? { status: 503 } : undefined)
  tell('one')
  await answered(1)
  t.equal(api.requests.length, 3)
  t.equal(await told('failed'), 1)
  t.match(lines, [{ msg: 'event not told', object: 'shop/one' }])
  clock.advance(5 * MINUTE)
  clock.advance(5 * MINUTE)
  t.equal(api.requests.length, 3)
  isBusy = false
  tell('one')
  await answered(2)
  t.equal(await told('told'), 1)
})

await t.test('what is refused is not asked again', async t => {
  const { api, tell, answered } = await scene(t)
  api.fault = ({ method }) => (method === 'POST' ? { status: 403 } : undefined)
  tell('one')
  await answered(1)
  t.equal(api.requests.length, 1)
})

await t.test('an Event whose time is over is created anew', async t => {
  const { api, clock, tell, answered, events } = await scene(t)
  tell('one')
  await answered(1)
  api.objects.clear()
  tell('one')
  clock.advance(5 * MINUTE)
  await answered(2)
  t.match(events(), [{ reason: 'EnrolmentPending', series: undefined }])
})
