import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { StatusWriter, type StatusWriterOptions } from '../../../ca-server/kubernetes/status-writer.ts'
import { createMetrics } from '../../../ca-server/metrics.ts'
import type { KubePod } from '../../../lib/kube/objects.ts'
import { becomes } from '../../helpers/becomes.ts'
import { kubePod } from '../../helpers/kube-world.ts'
import { quietLog, type Line } from '../../helpers/quiet-log.ts'
import { StandInApi, type Json } from '../../helpers/stand-in-api.ts'

interface Scene {
  api: StandInApi
  writer: StatusWriter
  lines: Line[]
  /** Puts a pod there and gives it as a watch would. */
  pod: (name: string, status?: string) => KubePod
  /** The annotation as the API server has it. */
  status: (name: string) => unknown
  idle: () => Promise<void>
}

async function scene(t: Test, options: Partial<StatusWriterOptions> = {}): Promise<Scene> {
  const api = await StandInApi.start(t)
  const { log, lines } = quietLog()
  const stopping = new AbortController()
  t.teardown(() => stopping.abort())
  const writer = new StatusWriter({
    api: api.client(t),
    metrics: createMetrics(),
    log,
    signal: stopping.signal,
    patienceMs: 50,
    ...options,
  })
  const pathOf = (name: string): string => `/api/v1/namespaces/shop/pods/${name}`
  const metadataOf = (name: string): Json => api.objects.get(pathOf(name))?.['metadata'] as Json
  return {
    api,
    writer,
    lines,
    pod(name, status) {
      const annotations = status === undefined ? {} : { 'culvert.dev/status': status }
      api.put(pathOf(name), { metadata: { uid: `uid-${name}`, annotations } })
      return podWith(name, status)
    },
    status: name => (metadataOf(name)['annotations'] as Json)['culvert.dev/status'],
    async idle() {
      await becomes(() => writer.waiting === 0)
    },
  }
}

function podWith(name: string, mesh?: string): KubePod {
  const pod = kubePod(name)
  return { ...pod, status: { ...pod.status, ...(mesh !== undefined && { mesh }) } }
}

await t.test('what is put is written with the uid, and what stands there is not written again', async t => {
  const { api, writer, pod, status, idle } = await scene(t)
  const one = pod('one')
  writer.put(one, 'enrolled')
  writer.put(one, 'enrolled')
  await idle()
  t.equal(status('one'), 'enrolled')
  t.strictSame(api.requests, [
    {
      method: 'PATCH',
      path: '/api/v1/namespaces/shop/pods/one',
      body: { metadata: { uid: 'uid-one', annotations: { 'culvert.dev/status': 'enrolled' } } },
    },
  ])
  writer.put(one, 'enrolled')
  t.equal(writer.waiting, 0, 'though the watch has not told of it yet')
  writer.put(one, undefined)
  await idle()
  t.equal(status('one'), undefined)
  writer.put(pod('two', 'there'), 'there')
  t.equal(writer.waiting, 0)
})

await t.test('the last word counts, and words about one pod are written one after the other', async t => {
  const { api, writer, pod, status, idle } = await scene(t)
  const one = pod('one')
  const held = Promise.withResolvers<void>()
  api.fault = async () => {
    await held.promise
    return undefined
  }
  writer.put(one, 'first')
  await api.until(() => api.requests.length === 1)
  for (const text of ['second', 'third', 'fourth']) writer.put(one, text)
  held.resolve()
  await idle()
  t.equal(status('one'), 'fourth')
  t.equal(api.requests.length, 2)
})

await t.test('what may wait is not written when something else comes first', async t => {
  const { api, writer, pod, status, idle } = await scene(t)
  writer.put(pod('one'), 'pending', true)
  const two = pod('two')
  writer.put(two, 'pending', true)
  writer.put(two, 'enrolled')
  const three = pod('three')
  writer.put(three, 'pending', true)
  writer.put(three, undefined)
  await idle()
  t.strictSame([status('one'), status('two'), status('three')], ['pending', 'enrolled', undefined])
  t.equal(api.requests.length, 2)
})

await t.test('some are written at a time', async t => {
  const { api, writer, pod, idle } = await scene(t)
  const held: (() => void)[] = []
  api.fault = () => new Promise(resolve => held.push(() => resolve(undefined)))
  for (let at = 0; at < 20; at++) writer.put(pod(`pod-${at}`), 'enrolled')
  await api.until(() => api.requests.length === 8)
  await setImmediate()
  t.equal(held.length, 8)
  held.shift()!()
  await api.until(() => api.requests.length === 9)
  await setImmediate()
  t.equal(held.length, 8)
  api.fault = () => undefined
  for (const answer of held) answer()
  await idle()
  t.equal(api.requests.length, 20)
})

await t.test('while the API server is busy or away they wait, and then the last word is written', async t => {
  const { api, writer, pod, status, idle, lines } = await scene(t)
  const faults = [{ status: 503 }, { status: 429, headers: { 'retry-after': '1' } }, 'cut'] as const
  const askedAtMs: number[] = []
  api.fault = () => faults[askedAtMs.push(performance.now()) - 1]
  const one = pod('one')
  writer.put(one, 'first')
  await api.until(() => askedAtMs.length === 3)
  writer.put(one, 'second')
  writer.put(pod('two'), 'enrolled')
  await idle()
  t.strictSame([status('one'), status('two')], ['second', 'enrolled'])
  t.ok(askedAtMs[2]! - askedAtMs[1]! >= 990, 'as long as it was asked to')
  t.ok(lines.some(({ msg, pod }) => msg === 'status of pods not written, trying again' && pod === 'shop/one'))
})

await t.test('a pod that has gone, and one that only has its name, is not written to', async t => {
  const { api, writer, pod, status, idle, lines } = await scene(t)
  const gone = pod('gone')
  api.objects.clear()
  writer.put(gone, 'enrolled')
  await idle()
  const old = pod('one')
  api.put('/api/v1/namespaces/shop/pods/one', { metadata: { uid: 'uid-next', annotations: {} } })
  writer.put(old, 'enrolled')
  await idle()
  t.equal(status('one'), undefined)
  t.strictSame(lines, [])
})

await t.test('what is not allowed is dropped and said, and others are written', async t => {
  const { api, writer, pod, status, idle, lines } = await scene(t)
  api.fault = ({ path }) => (path.endsWith('/one') ? { status: 403 } : undefined)
  const one = pod('one')
  writer.put(one, 'enrolled')
  writer.put(pod('two'), 'enrolled')
  await idle()
  t.equal(status('two'), 'enrolled')
  t.match(lines, [{ msg: 'status of pod not written', pod: 'shop/one' }])
  api.fault = () => undefined
  writer.put(one, 'enrolled')
  await idle()
  t.equal(status('one'), 'enrolled', 'when it is said again it is tried again')
})

await t.test('not more than so many wait', async t => {
  const { api, writer, pod, idle } = await scene(t, { mostWaiting: 10 })
  const held = Promise.withResolvers<void>()
  api.fault = async () => {
    await held.promise
    return undefined
  }
  const pods = Array.from({ length: 15 }, (_, at) => pod(`pod-${at}`))
  for (const each of pods) writer.put(each, 'enrolled')
  t.equal(writer.waiting, 10)
  writer.put(pods[9]!, 'drifted')
  t.equal(writer.waiting, 10, 'one that waits may change its mind')
  held.resolve()
  await idle()
  t.equal(api.requests.length, 10)
})

await t.test('what stands there is outdated until it is what was written', async t => {
  const { writer, pod, idle } = await scene(t)
  const settled: string[] = []
  writer.onSettled(uid => settled.push(uid))
  const one = pod('one')
  t.equal(writer.isOutdated(one), false)
  writer.put(one, 'enrolled')
  t.equal(writer.isOutdated(one), true)
  await idle()
  t.strictSame(settled, ['uid-one'])
  t.equal(writer.isOutdated(one), true, 'of before')
  t.equal(writer.isOutdated(podWith('one', 'pending')), true, 'of before that')
  t.equal(writer.isOutdated(podWith('one', 'enrolled')), false)
  t.equal(writer.isOutdated(podWith('one', 'drifted')), false, 'somebody has written after us')
})

await t.test('what was written and does not come back is not waited for for ever', async t => {
  const { writer, pod } = await scene(t, { echoMs: 30 })
  const settled = new Map<string, () => void>()
  writer.onSettled(uid => settled.get(uid)?.())
  const next = (uid: string) => new Promise<void>(resolve => settled.set(uid, resolve))
  const written = [next('uid-one'), next('uid-two')]
  const pods = [pod('one'), pod('two')]
  for (const each of pods) writer.put(each, 'enrolled')
  await Promise.all(written)
  await Promise.all([next('uid-one'), next('uid-two')])
  t.strictSame(
    pods.map(each => writer.isOutdated(each)),
    [false, false],
  )
})
