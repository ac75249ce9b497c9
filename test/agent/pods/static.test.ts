import { mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EventEmitter, once } from 'node:events'
import t, { type Test } from 'tap'
import type { LocalPod, PodEvents } from '../../../agent/pods/source.ts'
import { StaticPodSource } from '../../../agent/pods/static.ts'
import { becomes } from '../../helpers/becomes.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const pod = (uid: string, more: Partial<LocalPod> = {}): LocalPod => ({
  uid,
  namespace: 'shop',
  name: uid,
  serviceAccount: 'default',
  ips: ['10.0.0.1'],
  annotations: {},
  netns: `/run/netns/${uid}`,
  terminating: false,
  ...more,
})

function world(t: Test) {
  const dir = join(t.testdir(), 'pods')
  mkdirSync(dir)
  const file = join(dir, 'pods.json')
  const told: string[] = []
  const news = new EventEmitter()
  const { log, lines } = quietLog()
  const write = (text: string) => {
    writeFileSync(`${file}.next`, text)
    renameSync(`${file}.next`, file)
  }
  const stop = new AbortController()
  const tell = (text: string) => {
    told.push(text)
    news.emit('told')
  }
  const events: PodEvents = {
    podSeen: async ({ uid, terminating }) => tell(`seen ${uid}${terminating ? ' terminating' : ''}`),
    podSafe: async () => 'safe',
    podGone: async uid => tell(`gone ${uid}`),
    synced: async uids => tell(`synced ${[...uids].join(' ')}`),
  }
  const start = (more: Partial<PodEvents> = {}) => {
    const running = new StaticPodSource({ file, log, pollMs: 20 }).run({ ...events, ...more }, stop.signal)
    t.teardown(async () => {
      stop.abort()
      await running
    })
    return running
  }
  /** What was told so far, once it is this many things. */
  const after = async (count: number) => {
    while (told.length < count) await once(news, 'told')
    return told.splice(0)
  }
  return {
    file,
    dir,
    write,
    pods: (...pods: LocalPod[]) => write(JSON.stringify({ pods })),
    start,
    stop,
    after,
    lines,
  }
}

await t.test('what is there at the start is told, then that this was all; then what differs', async t => {
  const { pods, start, after } = world(t)
  pods(pod('a'), pod('b'))
  void start()
  t.strictSame(await after(3), ['seen a', 'seen b', 'synced a b'])
  pods(pod('b', { terminating: true }), pod('c'))
  t.strictSame(await after(3), ['gone a', 'seen b terminating', 'seen c'])
})

await t.test('a file that comes later is read when it is there', async t => {
  const { pods, start, after, lines } = world(t)
  void start()
  pods()
  t.strictSame(await after(1), ['synced '])
  t.ok(lines.every(({ msg }) => msg !== 'pod event failed'))
})

await t.test('a broken file changes nothing and is complained about once', async t => {
  const { file, pods, write, start, after, lines } = world(t)
  pods(pod('a'))
  void start()
  await after(2)
  write('{"pods": [{"uid": "a"}]}')
  const complaints = () => lines.filter(({ msg }) => msg === 'pod file is not usable; keeping what was known')
  await becomes(() => complaints().length > 0)
  t.match(complaints()[0], { level: 'error', err: 'pods[0].netns is not a text' })
  utimesSync(file, 1, 1)
  rmSync(file)
  pods(pod('a'), pod('b'))
  t.strictSame(await after(1), ['seen b'])
  t.ok(complaints().length <= 2, 'the same complaint is not repeated at every look')
})

await t.test(
  'a pod that cannot be taken in does not hold up the others, and what is told of it stays in order',
  async t => {
    const { pods, start, after, lines } = world(t)
    const order: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    pods(pod('slow'), pod('bad'), pod('good'))
    void start({
      podSeen: async ({ uid, terminating }) => {
        if (uid === 'bad') throw new Error('no such namespace')
        if (uid === 'slow' && !terminating) await promise
        order.push(`${uid}${terminating ? ' terminating' : ''}`)
      },
    })
    t.strictSame(await after(1), ['synced slow bad good'])
    t.strictSame(order, ['good'])
    pods(pod('slow', { terminating: true }), pod('bad'), pod('good'))
    resolve()
    await becomes(() => order.length >= 3)
    t.strictSame(order, ['good', 'slow', 'slow terminating'])
    t.match(
      lines.find(({ msg }) => msg === 'pod event failed'),
      { podUid: 'bad', err: 'no such namespace' },
    )
  },
)

await t.test('it ends when told to, and at once when it was told before', async t => {
  const { start, stop, pods } = world(t)
  pods()
  const running = start()
  stop.abort()
  await running
  await start()
})
