import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Observed, type AgentReport } from '../../../ca-server/reports/observed.ts'
import { FileObservedStore, type ObservedState } from '../../../ca-server/reports/store.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubePod } from '../../../lib/kube/objects.ts'
import { temporaryDirectory } from '../../helpers/ca-server.ts'
import { kubePod } from '../../helpers/kube-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const one = kubePod('one')
const two = kubePod('two')
const far = kubePod('far', { node: 'node-b' })

interface Scene {
  world: World
  observed: Observed
  path: string
  clock: { nowMs: number }
  told: string[]
  state: (pod: KubePod) => ObservedState | undefined
  report: (
    pods: Record<string, ObservedState>,
    more?: Partial<AgentReport>,
  ) => Promise<{ believed: boolean; unknownPods: readonly string[] }>
}

async function scene(t: Test, pods: KubePod[] = [one, two, far], path?: string): Promise<Scene> {
  const world = new World()
  const file = path ?? join(temporaryDirectory(t), 'observed.json')
  const clock = { nowMs: 0 }
  const observed = await Observed.open({
    world,
    store: new FileObservedStore(file),
    log: quietLog().log,
    nowMs: () => clock.nowMs,
  })
  const told: string[] = []
  observed.onChange(keys => told.push(...keys))
  world.replaceAll(pods)
  return {
    world,
    observed,
    path: file,
    clock,
    told,
    state: pod => observed.of(pod)?.state,
    report: (states, more = {}) =>
      observed.report({
        node: 'node-a',
        instance: 'first',
        startedAtMs: 1000,
        full: false,
        pods: Object.entries(states).map(([name, state]) => ({
          podUid: `uid-${name}`,
          state,
          detail: '',
          observedAtMs: 0,
        })),
        ...more,
      }),
  }
}

await t.test('a pod that is not scheduled yet is nobody’s, and nothing is known of it', async t => {
  const { world, state, told } = await scene(t)
  const unscheduled = kubePod('unscheduled', { node: '' })
  world.apply([unscheduled], [])
  t.equal(world.podByUid(unscheduled.metadata.uid)?.metadata.name, 'unscheduled', 'it was taken')
  t.equal(state(unscheduled), undefined)
  t.strictSame(told, [])
})

await t.test('an agent is believed about the pods of its node only', async t => {
  const { report, state, told } = await scene(t)
  const outcome = await report({ one: 'enrolled', far: 'enrolled', nobody: 'enrolled' })
  t.strictSame(outcome, { believed: true, unknownPods: ['uid-far', 'uid-nobody'] })
  t.equal(state(one), 'enrolled')
  t.equal(state(far), undefined)
  t.strictSame(told, ['shop/one'])
  await report({ one: 'enrolled' })
  t.strictSame(told, ['shop/one'], 'the same again is no news')
})

await t.test('a full report takes back what it does not name', async t => {
  const { report, state } = await scene(t)
  await report({ one: 'enrolled', two: 'drifted' })
  await report({ far: 'enrolled' }, { node: 'node-b', full: true })
  await report({ two: 'enrolled' }, { full: true })
  t.strictSame([state(one), state(two), state(far)], ['not-enrolled', 'enrolled', 'enrolled'])
})

await t.test('a drained predecessor is not believed, whatever it says', async t => {
  const { report, state } = await scene(t)
  await report({ one: 'enrolled' })
  await report({ one: 'enrolled' }, { instance: 'second', startedAtMs: 2000, full: true })
  t.match(await report({}, { full: true }), { believed: false })
  t.match(await report({ one: 'not-enrolled' }), { believed: false })
  t.equal(state(one), 'enrolled')
  await report({ one: 'not-enrolled' }, { instance: 'second', startedAtMs: 2000 })
  t.equal(state(one), 'not-enrolled')
})

await t.test('when the newest agent has been silent for long, another is believed again', async t => {
  const { report, state, clock } = await scene(t)
  await report({ one: 'enrolled' }, { instance: 'from the future', startedAtMs: 9_999_999 })
  clock.nowMs += 170_000
  t.match(await report({ one: 'drifted' }), { believed: false })
  clock.nowMs += 20_000
  t.match(await report({ one: 'drifted' }), { believed: true })
  t.equal(state(one), 'drifted')
})

await t.test('a report that comes before the pod is known counts when it comes', async t => {
  const { world, report, state, clock, told } = await scene(t, [one])
  await report({ two: 'enrolled', late: 'enrolled' })
  world.replaceAll([one, two])
  t.equal(state(two), 'enrolled')
  t.strictSame(told, ['shop/two'])
  clock.nowMs += 61_000
  const late = kubePod('late')
  world.replaceAll([one, two, late])
  t.equal(state(late), undefined, 'but not after a minute')

  await report({ far: 'enrolled' })
  world.replaceAll([one, two, far])
  t.equal(state(far), undefined, 'nor for a pod of another node')
})

await t.test('an observation goes with the uid of its pod', async t => {
  const { world, report, state, observed } = await scene(t)
  await report({ one: 'enrolled', two: 'enrolled' })
  const next = kubePod('one', { uid: 'uid-next' })
  world.replaceAll([next, two, far])
  t.strictSame([state(next), state(one), state(two)], [undefined, undefined, 'enrolled'])
  t.strictSame([...observed.counts()], [['enrolled', 1]])
})

await t.test('what was observed is remembered, and who said it', async t => {
  const first = await scene(t)
  await first.report({ one: 'enrolled', two: 'enrolled' }, { instance: 'second', startedAtMs: 2000 })
  const again = await scene(t, [one, far], first.path)
  t.strictSame(
    [again.state(one), again.state(two)],
    ['enrolled', undefined],
    'a pod that is gone is forgotten',
  )
  t.match(await again.report({ one: 'not-enrolled' }), { believed: false }, 'the predecessor is still one')
  t.match(await again.report({ one: 'drifted' }, { instance: 'second', startedAtMs: 2000 }), {
    believed: true,
  })
})

await t.test('a store that cannot be read is said, and the server starts', async t => {
  for (const text of ['', 'null', '{"format":2,"pods":[]}', '{"format":1,"pods":[{}]}']) {
    const path = join(temporaryDirectory(t), 'observed.json')
    writeFileSync(path, text)
    await t.rejects(new FileObservedStore(path).load(), { code: 'INPUT' })
    const { report, state } = await scene(t, [one], path)
    t.equal(state(one), undefined)
    await report({ one: 'enrolled' })
    t.match(JSON.parse(readFileSync(path, 'utf8')), { pods: [{ podUid: 'uid-one', state: 'enrolled' }] })
  }
})

await t.test('changes that come while the file is written are in it when their promise ends', async t => {
  const path = join(temporaryDirectory(t), 'observed.json')
  const store = new FileObservedStore(path)
  await store.load()
  const observation = (podUid: string) => ({
    podUid,
    namespace: 'shop',
    name: podUid,
    node: 'node-a',
    state: 'enrolled' as const,
    detail: '',
    observedAtMs: 1,
    instance: 'x',
    startedAtMs: 1,
  })
  const uids = () =>
    (JSON.parse(readFileSync(path, 'utf8')) as { pods: { podUid: string }[] }).pods.map(p => p.podUid)
  await Promise.all(
    Array.from({ length: 20 }, async (_, at) => {
      await store.record([observation(`${at}`)], at > 0 ? [`${at - 1}`] : [])
      t.ok(!uids().includes(`${at - 1}`))
    }),
  )
  t.strictSame(uids(), ['19'])
})
