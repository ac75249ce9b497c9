import t from 'tap'
import type { Occurrence } from '../../../ca-server/kubernetes/event-recorder.ts'
import { Sweep } from '../../../ca-server/kubernetes/sweep.ts'
import type { Observation, ObservedState } from '../../../ca-server/reports/store.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubeObject, KubePod } from '../../../lib/kube/objects.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../../helpers/kube-world.ts'

const BASE = [kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED)]
const AGENT = kubePod('agent', {
  namespace: 'culvert-system',
  serviceAccount: 'culvert-agent',
  hostNetwork: true,
})

function scene(objects: readonly KubeObject[]) {
  const world = new World()
  world.replaceAll([...BASE, ...objects])
  const seen = new Map<string, Observation>()
  const told: string[] = []
  const put: [string, string | undefined][] = []
  const role = { isLeading: true, nowMs: Date.parse('2026-11-28T12:00:00Z') }
  const sweep = new Sweep({
    world,
    observed: { of: pod => seen.get(pod.metadata.uid) },
    annotations: { put: (pod, text) => put.push([pod.metadata.name, text]) },
    recorder: {
      tell: ({ regarding, reason, note }: Occurrence) =>
        told.push(`${regarding.kind} ${regarding.name} ${reason}: ${note}`),
    },
    agentAccounts: new Set(['culvert-system/culvert-agent']),
    isLeading: () => role.isLeading,
    nowMs: () => role.nowMs,
  })
  return {
    world,
    told,
    put,
    role,
    sweep,
    /** Looks so many seconds later. */
    after: async (seconds: number) => {
      role.nowMs += seconds * 1000
      await sweep.look()
    },
    observe: (name: string, state: ObservedState, detail = '') => {
      const observedAtMs = role.nowMs
      const common = { namespace: 'shop', name, node: 'node-a', instance: 'x', startedAtMs: 0 }
      seen.set(`uid-${name}`, { ...common, podUid: `uid-${name}`, state, detail, observedAtMs })
    },
  }
}

function podWith(name: string, mesh: string, shape = {}): KubePod {
  const pod = kubePod(name, shape)
  return { ...pod, status: { ...pod.status, mesh } }
}

await t.test('a pod of which nobody says anything gets to know why it is not in the mesh', async t => {
  const { after, put, told, observe } = scene([kubePod('one'), kubePod('two')])
  observe('two', 'enrolled')
  await after(0)
  await after(25)
  t.strictSame(put, [])
  await after(10)
  t.strictSame(put, [['one', 'pending: no agent reports from node node-a (since 2026-11-28T12:00:35Z)']])
  observe('one', 'pending', 'no agent reports from node node-a')
  await after(10)
  t.strictSame(told, [])
  await after(10)
  t.strictSame(told, ['Pod one EnrolmentPending: no agent reports from node node-a: none runs there'])
})

await t.test('when an agent is there, it is named', async t => {
  const { after, told, observe } = scene([kubePod('one'), AGENT])
  observe('one', 'pending', 'no agent reports from node node-a')
  await after(20)
  t.strictSame(told, [
    'Pod one EnrolmentPending: no agent reports from node node-a: culvert-system/agent runs there, and says nothing of this pod',
  ])
})

await t.test('pods that cannot have been heard of are waited for', async t => {
  const { after, put } = scene([
    kubePod('unscheduled', { node: '' }),
    kubePod('coming', { ips: [] }),
    kubePod('done', { phase: 'Succeeded' }),
    kubePod('going', { meta: { deletionTimestamp: '2026-11-28T12:00:00Z' } }),
    kubePod('host', { hostNetwork: true }),
    kubePod('out', { namespace: 'elsewhere' }),
    kubeNode('node-z', '10.99.0.9', { annotations: { 'culvert.dev/agent': 'foreign' } }),
    kubePod('foreign', { node: 'node-z' }),
  ])
  await after(0)
  await after(60)
  t.strictSame(put, [])
})

await t.test('a silence that was broken begins anew', async t => {
  const { after, put, observe } = scene([kubePod('one')])
  await after(0)
  observe('one', 'pending', 'soon')
  await after(20)
  observe('one', 'not-enrolled')
  await after(20)
  await after(20)
  t.strictSame(put, [])
  await after(15)
  t.equal(put.length, 1)
})

await t.test(
  'what stays pending or drifted is told once, and again when it is another reason or has lasted',
  async t => {
    const { after, told, observe, role } = scene([kubePod('one'), kubePod('two'), AGENT])
    observe('one', 'pending', 'waiting for a certificate')
    observe('two', 'drifted', 'IPv4 nat: a rule is gone (by iptables (pid 42))')
    await after(10)
    t.strictSame(told, ['Pod two RedirectionChanged: IPv4 nat: a rule is gone (by iptables (pid 42))'])
    await after(10)
    await after(10)
    t.strictSame(told.splice(0), [
      'Pod two RedirectionChanged: IPv4 nat: a rule is gone (by iptables (pid 42))',
      'Pod one EnrolmentPending: waiting for a certificate',
    ])
    const since = role.nowMs
    observe('one', 'pending', '')
    await after(20)
    t.strictSame(told.splice(0), ['Pod one EnrolmentPending: for no known reason'])
    role.nowMs = since
    await after(1790)
    t.equal(told.length, 1, 'the drift, which was told half an hour ago')
    observe('two', 'enrolled')
    await after(10)
    observe('two', 'drifted', 'again')
    told.length = 0
    await after(10)
    t.strictSame(told, ['Pod two RedirectionChanged: again'])
  },
)

await t.test('annotations that are not understood are told of whoever has them', async t => {
  const annotations = { 'culvert.dev/mtls': 'stern', 'culvert.dev/mesh': 'enabled' }
  const { after, told, observe } = scene([
    kubeNamespace('other', { 'culvert.dev/mehs': 'enabled' }),
    kubePod('one', { meta: { annotations } }),
    AGENT,
  ])
  observe('one', 'enrolled')
  await after(0)
  await after(10)
  t.strictSame(told, [
    'Namespace other AnnotationIgnored: culvert.dev/mehs: no such annotation',
    "Pod one AnnotationIgnored: culvert.dev/mtls: 'stern' is not one of strict, permissive",
  ])
})

await t.test('a pod of another mesh that was asked in is told so', async t => {
  const meta = { annotations: { 'sidecar.istio.io/status': '{}' } }
  const { after, told, put } = scene([
    kubePod('one', { meta }),
    kubePod('two', { namespace: 'out', meta }),
    AGENT,
  ])
  await after(0)
  await after(60)
  t.strictSame(told, ['Pod one OtherMesh: pod has an Istio proxy: left alone'])
  t.strictSame(put, [])
})

await t.test(
  'the status of a pod that left the mesh goes, when no agent is there to take it away',
  async t => {
    const stale = podWith('one', 'enrolled (since 2026-11-28T11:00:00Z)', { namespace: 'out' })
    const done = podWith('two', 'enrolled (since 2026-11-28T11:00:00Z)', { phase: 'Succeeded' })
    const { after, put, world } = scene([stale, done, AGENT])
    await after(0)
    await after(120)
    t.strictSame(put, [], 'its agent does that')
    world.apply([], [{ kind: 'Pod', key: 'culvert-system/agent' }])
    await after(10)
    await after(50)
    t.strictSame(put, [])
    await after(20)
    t.strictSame(put, [
      ['one', undefined],
      ['two', undefined],
    ])
  },
)

await t.test(
  'pods that were enrolled stay so while their agent is away; their node says that it is',
  async t => {
    const { after, told, put, observe, world } = scene([kubePod('one'), kubePod('two')])
    observe('one', 'enrolled')
    observe('two', 'enrolled')
    await after(0)
    await after(50)
    t.strictSame(told, [])
    await after(15)
    t.strictSame(told.splice(0), [
      'Node node-a NoAgent: no Culvert agent runs here, and 2 pods of the mesh do: their new connections wait for one',
    ])
    t.strictSame(put, [])
    world.apply([AGENT], [])
    await after(10)
    world.apply(
      [kubePod('agent', { namespace: 'culvert-system', serviceAccount: 'culvert-agent', phase: 'Pending' })],
      [],
    )
    await after(10)
    await after(50)
    t.strictSame(told, [], 'it had been there')
  },
)

await t.test('whoever leads no more stops in the middle, and remembers nothing', async t => {
  const pods = Array.from({ length: 2500 }, (_, at) => kubePod(`pod-${at}`))
  const { after, put, role, sweep } = scene(pods)
  await after(0)
  role.nowMs += 60_000
  const looking = sweep.look()
  role.isLeading = false
  await looking
  t.ok(put.length > 0 && put.length < 2500, `${put.length}`)
  role.isLeading = true
  sweep.reset()
  put.length = 0
  await after(1)
  t.strictSame(put, [])
})

await t.test('before the cluster is known nothing is said of it', async t => {
  const world = new World()
  world.apply([...BASE, kubePod('one')], [])
  const put: unknown[] = []
  let nowMs = 0
  const sweep = new Sweep({
    world,
    observed: { of: () => undefined },
    annotations: { put: pod => put.push(pod) },
    recorder: { tell: () => undefined },
    agentAccounts: new Set(),
    isLeading: () => true,
    nowMs: () => (nowMs += 100_000),
  })
  await sweep.look()
  await sweep.look()
  t.strictSame(put, [])
})
