import t from 'tap'
import { objectsOf } from '../../../cli/cluster/manifest.ts'
import { pathOf } from '../../../cli/kubernetes/objects.ts'
import { here } from '../../helpers/here.ts'
import { StandInCluster } from '../../helpers/stand-in-cluster.ts'

const REPORT = '{"node":"x","findings":[{"id":"clean","state":"ok","text":"2 pods had rules"}]}'

async function installed(t: Parameters<typeof StandInCluster.start>[0]): Promise<StandInCluster> {
  const cluster = await StandInCluster.start(t)
  for (const object of objectsOf('default')) cluster.put(pathOf(object), object as never)
  cluster.add({
    kind: 'Namespace',
    metadata: {
      name: 'shop',
      annotations: { 'culvert.dev/mesh': 'enabled', 'culvert.dev/mtls': 'strict', owner: 'ada' },
    },
  })
  cluster.add({
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'shop', annotations: { 'culvert.dev/status': 'enrolled' } },
    spec: { nodeName: 'node-a', containers: [] },
    status: { phase: 'Running' },
  })
  cluster.reaction = object => {
    if (object.kind === 'Pod' && !object['status']) object['status'] = { phase: 'Succeeded' }
  }
  cluster.fault = ({ path }) => (path.endsWith('/log') ? { status: 200, body: REPORT } : undefined)
  return cluster
}

const annotationsOf = (cluster: StandInCluster, path: string) =>
  cluster.objects.get(path)?.metadata['annotations']

await t.test('nothing of ours is left, and nothing of others is touched', async t => {
  const cluster = await installed(t)
  const { code, stdout, stderr } = await here(t, ['uninstall', '--yes', '--json', ...cluster.words(t)])
  t.equal(code, 0, stderr)
  t.match(JSON.parse(stdout), {
    unenrolled: ['shop/web'],
    annotations: 'removed',
    nodes: [{ node: 'node-a' }, { node: 'node-b' }],
  })
  t.strictSame(cluster.paths(/culvert/), [])
  t.strictSame(annotationsOf(cluster, '/api/v1/namespaces/shop'), { owner: 'ada' })
  t.strictSame(annotationsOf(cluster, '/api/v1/namespaces/shop/pods/web'), {})
  const order = cluster.asked.map(({ method, path }) => `${method} ${path}`)
  const at = (text: string) => order.findIndex(line => line.startsWith(text))
  t.ok(
    at('PATCH /api/v1/namespaces/shop') < at('DELETE /apis/apps/v1/namespaces/culvert-system/daemonsets'),
    'out of the mesh first',
  )
  t.ok(
    at('DELETE /apis/apps/v1/namespaces/culvert-system/daemonsets') < at('POST /api/v1/namespaces'),
    'nodes are cleaned once no agent runs',
  )
})

await t.test('annotations are put back where that was asked for', async t => {
  const cluster = await installed(t)
  const { code } = await here(t, ['uninstall', '--yes', '--keep-annotations', ...cluster.words(t)])
  t.equal(code, 0)
  t.strictSame(annotationsOf(cluster, '/api/v1/namespaces/shop'), {
    'culvert.dev/mesh': 'enabled',
    'culvert.dev/mtls': 'strict',
    owner: 'ada',
  })
  t.strictSame(annotationsOf(cluster, '/api/v1/namespaces/shop/pods/web'), {}, 'what was observed is over')
})

await t.test('a node that could not be cleaned is named, and the end is 1', async t => {
  const cluster = await installed(t)
  cluster.fault = ({ path }) => (path.endsWith('/log') ? { status: 200, body: 'out of memory' } : undefined)
  const { code, stderr } = await here(t, ['uninstall', '--yes', ...cluster.words(t)])
  t.equal(code, 1)
  t.match(stderr, /node-a was not cleaned: not a report/)
  t.strictSame(cluster.paths(/culvert/), [], 'all else is gone')
})

await t.test('without a yes, and nobody to ask, nothing is done', async t => {
  const cluster = await installed(t)
  const { code, stderr } = await here(t, ['uninstall', ...cluster.words(t)])
  t.equal(code, 2)
  t.match(stderr, /needs a yes\nhint: culvert uninstall --yes/)
  t.strictSame(cluster.asked, [])
})
