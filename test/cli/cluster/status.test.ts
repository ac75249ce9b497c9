import t from 'tap'
import { differencesOf } from '../../../cli/cluster/differences.ts'
import { here } from '../../helpers/here.ts'
import { StandInCluster } from '../../helpers/stand-in-cluster.ts'

await t.test('status tells who should be in the mesh, what was observed, and why not', async t => {
  const cluster = await StandInCluster.start(t)
  const pod = (name: string, annotations: Record<string, string>, spec: object = {}) =>
    cluster.add({
      kind: 'Pod',
      metadata: { name, namespace: 'shop', annotations },
      spec: { nodeName: 'node-a', containers: [], ...spec },
      status: { phase: 'Running', podIP: '10.0.0.1' },
    })
  cluster.add({
    kind: 'Namespace',
    metadata: { name: 'shop', annotations: { 'culvert.dev/mesh': 'enabled' } },
  })
  pod('in', { 'culvert.dev/status': 'enrolled (since 2026-01-01T00:00:00Z)', 'culvert.dev/mtls': 'strict' })
  pod('waits', { 'culvert.dev/status': 'pending: no certificate (since 2026-01-01T00:00:00Z)' })
  pod('new', {})
  pod('out', { 'culvert.dev/mesh': 'disabled' })
  pod('node-s-own', {}, { hostNetwork: true })
  const words = cluster.words(t)
  const { code, stdout } = await here(t, ['status', '--json', ...words])
  t.equal(code, 0)
  t.match(JSON.parse(stdout), {
    nodes: [
      { name: 'node-a', enrolled: 1, wanted: 3 },
      { name: 'node-b', enrolled: 0, wanted: 0 },
    ],
    namespaces: [{ name: 'shop', mtls: 'mixed', wanted: 3, enrolled: 1, pending: 2, drifted: 0 }],
    pods: [
      { name: 'in', state: 'enrolled', since: '2026-01-01T00:00:00.000Z' },
      { name: 'waits', state: 'pending', detail: 'no certificate' },
      { name: 'new', state: 'unknown' },
    ],
  })
  const text = (await here(t, ['status', ...words])).stdout
  t.match(text, /node-a +none/)
  t.match(text, /shop +waits +node-a +pending +no certificate/)
  t.notMatch(text, /shop +in /, 'those that are as they should be are not listed')
  t.match(
    (await here(t, ['status', '--namespace', 'other', ...words])).stdout,
    /no pod is meant to be in the mesh/,
  )
})

await t.test('differences are told by field, lists by name, and without what the server keeps', async t => {
  const before = {
    metadata: { resourceVersion: '1', managedFields: [], generation: 1 },
    spec: {
      replicas: 2,
      env: [
        { name: 'A', value: '1' },
        { name: 'B', value: '2' },
      ],
      args: ['x'],
    },
    status: { ready: 1 },
  }
  const after = {
    metadata: { resourceVersion: '2', managedFields: [1], generation: 2 },
    spec: {
      replicas: 3,
      env: [
        { name: 'B', value: '3' },
        { name: 'A', value: '1' },
      ],
      args: ['x', 'y'],
    },
    status: { ready: 2 },
  }
  t.strictSame(differencesOf(before, after), [
    'spec.replicas: 2 → 3',
    'spec.env[B].value: 2 → 3',
    'spec.args[1]: nothing → y',
  ])
  t.strictSame(differencesOf(before, before), [])
})
