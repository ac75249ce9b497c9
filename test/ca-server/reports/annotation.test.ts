import t from 'tap'
import type { StatusAnnotations } from '../../../ca-server/reports/annotation.ts'
import { Observed, type AgentReport } from '../../../ca-server/reports/observed.ts'
import type { ObservedState } from '../../../ca-server/reports/store.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubePod } from '../../../lib/kube/objects.ts'
import { parsePodStatus } from '../../../lib/pod-status.ts'
import { kubePod } from '../../helpers/kube-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

/** An hour ago, whatever the clock says. */
const SECOND = Math.floor(Date.now() / 1000) * 1000 - 3_600_000
const stamp = (seconds: number): string =>
  `(since ${new Date(SECOND + seconds * 1000).toISOString().slice(0, 19)}Z)`

const NO_STORE = { load: () => Promise.resolve([]), record: () => Promise.resolve() }

/** Annotations that are written the moment they are put, and come back when the test says so. */
class Desk implements StatusAnnotations {
  readonly put_: [string, string | undefined, boolean][] = []
  readonly forgotten: string[] = []
  outdated = false
  tellSettled: (uid: string) => void = () => undefined

  put(pod: KubePod, text: string | undefined, mayWait = false): void {
    if (pod.status.mesh !== text) this.put_.push([pod.metadata.name, text, mayWait])
  }

  isOutdated(): boolean {
    return this.outdated
  }

  onSettled(listener: (uid: string) => void): void {
    this.tellSettled = listener
  }

  forget(uid: string): void {
    this.forgotten.push(uid)
  }
}

interface Scene {
  world: World
  observed: Observed
  desk: Desk
  clock: { nowMs: number }
  state: (name?: string) => ObservedState | undefined
  /** The pod of that name, with its status, as a watch tells of it. */
  watch: (name: string, status?: string) => void
  report: (
    pods: Record<string, [ObservedState, number, string?]>,
    more?: Partial<AgentReport>,
  ) => Promise<unknown>
}

async function scene(pods: readonly KubePod[] = [podWith('one')]): Promise<Scene> {
  const world = new World()
  const desk = new Desk()
  const clock = { nowMs: 0 }
  const observed = await Observed.open({
    world,
    store: NO_STORE,
    annotations: desk,
    log: quietLog().log,
    nowMs: () => clock.nowMs,
  })
  world.replaceAll(pods)
  return {
    world,
    observed,
    desk,
    clock,
    state: (name = 'one') => observed.of(kubePod(name))?.state,
    watch: (name, status) => world.apply([podWith(name, status)], []),
    report: (states, more = {}) =>
      observed.report({
        node: 'node-a',
        instance: 'first',
        startedAtMs: 1000,
        full: false,
        pods: Object.entries(states).map(([name, [state, atSeconds, detail = '']]) => ({
          podUid: `uid-${name}`,
          state,
          detail,
          observedAtMs: SECOND + atSeconds * 1000,
        })),
        ...more,
      }),
  }
}

function podWith(name: string, mesh?: string, uid = `uid-${name}`): KubePod {
  const pod = kubePod(name, { uid })
  return { ...pod, status: { ...pod.status, ...(mesh !== undefined && { mesh }) } }
}

await t.test('what an agent says is put into the annotation; what may pass soon may wait', async t => {
  const { report, desk, watch } = await scene(['one', 'two', 'three'].map(name => podWith(name)))
  await report({
    one: ['enrolled', 1.9],
    two: ['pending', 2, 'no certificate'],
    three: ['drifted', 3, 'IPv4 nat: x'],
  })
  t.strictSame(desk.put_.splice(0), [
    ['one', `enrolled ${stamp(1)}`, false],
    ['two', `pending: no certificate ${stamp(2)}`, true],
    ['three', `drifted: IPv4 nat: x ${stamp(3)}`, false],
  ])
  watch('one', `enrolled ${stamp(1)}`)
  await report({ one: ['not-enrolled', 9] })
  t.strictSame(desk.put_, [['one', undefined, false]])
})

await t.test('what stands there and is not so any more does not wait', async t => {
  const { report, desk } = await scene([podWith('one', `enrolled ${stamp(1)}`)])
  await report({ one: ['pending', 2] })
  t.strictSame(desk.put_, [['one', `pending ${stamp(2)}`, false]])
})

await t.test('what stands there since before is not written again', async t => {
  const { report, desk } = await scene([podWith('one', `enrolled ${stamp(1)}`)])
  await report({ one: ['enrolled', 50] }, { instance: 'second', startedAtMs: 2000 })
  t.strictSame(desk.put_, [])
})

await t.test('what somebody wrote over it is put right when the agent speaks again', async t => {
  const { report, desk, watch, state } = await scene()
  await report({ one: ['enrolled', 1] })
  desk.put_.length = 0
  for (const lie of [`pending: a lie ${stamp(40)}`, 'gibberish', undefined]) {
    watch('one', lie)
    await report({ one: ['enrolled', 1] }, { full: true })
    t.equal(state(), 'enrolled', `${lie}`)
    t.strictSame(desk.put_.splice(0), [['one', `enrolled ${stamp(1)}`, false]], `${lie}`)
  }
})

await t.test('a full report clears what stands on pods that it does not name', async t => {
  const { report, desk, state } = await scene([
    podWith('one', `enrolled ${stamp(1)}`),
    podWith('two', 'gibberish'),
  ])
  t.equal(state(), 'enrolled')
  await report({}, { full: true })
  t.equal(state(), 'not-enrolled')
  t.strictSame(desk.put_, [
    ['one', undefined, false],
    ['two', undefined, false],
  ])
})

await t.test('a pod that is leaving keeps what stands there', async t => {
  const pod = podWith('one', `enrolled ${stamp(1)}`)
  const leaving = { ...pod, metadata: { ...pod.metadata, deletionTimestamp: '2026-11-28T12:00:09Z' } }
  const { report, desk, state } = await scene([leaving])
  await report({ one: ['not-enrolled', 9] })
  t.equal(state(), 'not-enrolled')
  t.strictSame(desk.put_, [])
})

await t.test('what the agent said to another replica is learnt from the annotation', async t => {
  const { watch, state, world } = await scene([podWith('one', `enrolled ${stamp(1)}`), podWith('two')])
  t.equal(state('one'), 'enrolled', 'from before our start')
  t.equal(state('two'), undefined)
  const told: string[] = []
  world.onChange(changes => told.push(...changes.map(({ key }) => key)))
  watch('two', `pending: x ${stamp(2)}`)
  t.equal(state('two'), 'pending')
  watch('two', `enrolled ${stamp(3)}`)
  t.equal(state('two'), 'enrolled')
  watch('two', `drifted: y ${stamp(2)}`)
  t.equal(state('two'), 'drifted', 'whoever writes last knows, whatever its clock')
  watch('two', 'gibberish')
  t.equal(state('two'), 'drifted')
  watch('two')
  t.equal(state('two'), 'not-enrolled')
})

await t.test('the newer of what an agent told us and what it told another replica counts', async t => {
  const { report, watch, state } = await scene()
  await report({ one: ['drifted', 5.5, 'x'] })
  watch('one', `enrolled ${stamp(4)}`)
  t.equal(state(), 'drifted', 'an older word comes late')
  watch('one', `enrolled ${stamp(5)}`)
  t.equal(state(), 'enrolled', 'in the same second the one that was written last')
  await report({ one: ['drifted', 5.6, 'x'] })
  t.equal(state(), 'drifted', 'but who speaks to us is believed')
})

await t.test('an agent that speaks to us no more is not waited for', async t => {
  const { report, watch, state, clock } = await scene()
  await report({ one: ['enrolled', 500] })
  clock.nowMs += 100_000
  watch('one', `drifted: its clock went back ${stamp(400)}`)
  t.equal(state(), 'drifted')
})

await t.test('what claims to be from the future is not believed, nor said', async t => {
  const { report, watch, state, desk } = await scene()
  watch('one', `enrolled ${stamp(3600 + 300)}`)
  t.equal(state(), undefined)
  watch('one', `enrolled ${stamp(3600)}`)
  t.equal(state(), 'enrolled')
  await report({ one: ['drifted', 9_999_999, 'x'] })
  const [, text] = desk.put_[0]!
  t.ok(parsePodStatus(text)!.sinceMs <= Date.now())
})

await t.test('what we have overwritten meanwhile does not count when it comes back', async t => {
  const { report, watch, state, desk } = await scene()
  await report({ one: ['enrolled', 5] })
  desk.outdated = true
  watch('one', `pending: of before ${stamp(5)}`)
  t.equal(state(), 'enrolled')
  watch('one')
  t.equal(state(), 'enrolled')
})

await t.test(
  'what was written after us counts, though we hear of it before our own write has ended',
  async t => {
    const { report, watch, state, desk } = await scene()
    await report({ one: ['enrolled', 5] })
    desk.outdated = true
    watch('one', `drifted: told to another ${stamp(6)}`)
    desk.outdated = false
    desk.tellSettled('uid-one')
    t.equal(state(), 'drifted')
    desk.tellSettled('uid-nobody')
  },
)

await t.test('a status goes with the uid of its pod', async t => {
  const { world, desk, state, observed } = await scene([podWith('one', `enrolled ${stamp(1)}`)])
  const next = podWith('one', `drifted: x ${stamp(1)}`, 'uid-next')
  world.replaceAll([next])
  t.strictSame([state(), observed.of(next)?.state], [undefined, 'drifted'])
  t.strictSame(desk.forgotten, ['uid-one'])
})

await t.test('a report that comes before the pod is known is put when the pod comes', async t => {
  const { report, world, desk, state } = await scene([])
  await report({ one: ['enrolled', 1] })
  world.replaceAll([podWith('one')])
  t.equal(state(), 'enrolled')
  t.strictSame(desk.put_, [['one', `enrolled ${stamp(1)}`, false]])
})
