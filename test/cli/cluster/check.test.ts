import t, { type Test } from 'tap'
import { objectsOf } from '../../../cli/cluster/manifest.ts'
import { pathOf } from '../../../cli/kubernetes/objects.ts'
import { here, type Heard } from '../../helpers/here.ts'
import { StandInCluster } from '../../helpers/stand-in-cluster.ts'

interface Report {
  readonly findings: { scope: string; id: string; state: string; text: string; hint?: string }[]
  readonly fail: number
}

async function scene(t: Test): Promise<{
  cluster: StandInCluster
  check: (...words: string[]) => Promise<Heard>
  report: (...words: string[]) => Promise<Report & { code: number }>
}> {
  const cluster = await StandInCluster.start(t)
  const words = cluster.words(t)
  const check = (...more: string[]) => here(t, ['check', ...words, ...more])
  return {
    cluster,
    check,
    report: async (...more) => {
      const { code, stdout, stderr } = await check('-o', 'json', ...more)
      t.equal(stderr, '')
      return { code, ...(JSON.parse(stdout) as Report) }
    },
  }
}

function enrolledPod(cluster: StandInCluster, name: string, app: string, more: object = {}): void {
  cluster.add({
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels: { app } },
    spec: { nodeName: 'node-a', containers: [] },
    status: { phase: 'Running', podIP: '10.0.0.1' },
    ...more,
  })
}

function shop(cluster: StandInCluster): void {
  cluster.add({
    kind: 'Namespace',
    metadata: { name: 'shop', annotations: { 'culvert.dev/mesh': 'enabled' } },
  })
  enrolledPod(cluster, 'client-1', 'client')
  enrolledPod(cluster, 'server-1', 'server')
}

/** A kubelet that runs the pods that look at nodes, to this end. */
function kubelet(cluster: StandInCluster, end: { phase: string; log: string }): void {
  cluster.reaction = object => {
    if (object.kind === 'Pod' && !object['status']) object['status'] = { phase: end.phase }
  }
  cluster.fault = ({ path }) => (path.endsWith('/log') ? { status: 200, body: end.log } : undefined)
}

await t.test('a cluster that can have it', async t => {
  const { cluster, report, check } = await scene(t)
  kubelet(cluster, {
    phase: 'Succeeded',
    log: '{"node":"x","findings":[{"id":"rules","state":"ok","text":"they stand"}]}',
  })
  const { code, findings } = await report()
  t.equal(code, 0)
  t.strictSame([...new Set(findings.map(({ scope }) => scope))], ['cluster', 'node node-a', 'node node-b'])
  t.ok(findings.every(({ state }) => state === 'ok'))
  t.strictSame(cluster.paths(/culvert-check/), [], 'nothing is left of the pods that looked')
  t.match((await check('--no-nodes')).stdout, /✔ Kubernetes v1\.34\.0[^]*\d+ ok, 0 to know, 0 failed/)
})

await t.test('a node that lacks something, and one whose pod cannot run, each with a hint', async t => {
  const { cluster, report } = await scene(t)
  kubelet(cluster, {
    phase: 'Succeeded',
    log: '{"node":"x","findings":[{"id":"rules","state":"fail","text":"no xt_comment","hint":"modprobe"}]}',
  })
  const lacking = await report()
  t.equal(lacking.code, 1)
  t.equal(lacking.fail, 2)
  for (const [end, text] of [
    [{ phase: 'Succeeded', log: 'Segmentation fault' }, /not a report/],
    [{ phase: 'Failed', log: 'line\ncannot find module\n' }, /cannot find module/],
  ] as const) {
    kubelet(cluster, end)
    const { code, findings } = await report()
    t.equal(code, 1)
    t.match(
      findings.filter(({ id }) => id === 'probe'),
      [
        { text, hint: String },
        { text, hint: String },
      ],
    )
    t.strictSame(cluster.paths(/culvert-check/), [])
  }
})

await t.test('the pods that look are gone although the API server failed meanwhile', async t => {
  const { cluster, report } = await scene(t)
  cluster.fault = ({ method, path }) =>
    method === 'GET' && path.endsWith('/pods') && path.includes('culvert-check') ? { status: 500 } : undefined
  const { code, findings } = await report()
  t.equal(code, 1)
  t.match(findings.at(-1), { id: 'probe', text: /nodes could not be looked at: .*500/ })
  t.strictSame(cluster.paths(/culvert-check/), [])
})

await t.test('other meshes, policies and annotations that are in the way are named', async t => {
  const { cluster, report } = await scene(t)
  shop(cluster)
  cluster.add({ kind: 'Namespace', metadata: { name: 'istio-system' } })
  cluster.add({
    kind: 'Namespace',
    metadata: {
      name: 'both',
      labels: { 'istio.io/dataplane-mode': 'ambient' },
      annotations: { 'culvert.dev/mesh': 'enabled', 'culvert.dev/mtls': 'hard' },
    },
  })
  cluster.add({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'only-8080', namespace: 'shop' },
    spec: {
      podSelector: { matchLabels: { app: 'server' } },
      ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 8080 }] }],
    },
  })
  enrolledPod(cluster, 'exporter', 'exporter', {
    spec: { nodeName: 'node-a', hostNetwork: true, containers: [] },
  })
  cluster.add({
    kind: 'ConfigMap',
    metadata: { name: 'cilium-config', namespace: 'kube-system' },
    data: { 'kube-proxy-replacement': 'true' },
  })
  const { code, findings } = await report('--pre', '--no-nodes')
  t.equal(code, 1)
  const by = (id: string) => findings.filter(finding => finding.id === id)
  t.match(by('policy/15008'), [
    { state: 'fail', text: /shop\/only-8080 lets shop\/\S+ talk to shop\/server-1/, hint: /15008/ },
  ])
  t.match(by('mesh/istio'), [{ state: 'warn' }])
  t.match(by('mesh/twice'), [{ state: 'fail', text: /both \(Istio \(ambient\)\)/ }])
  t.match(by('annotation'), [{ text: /namespace both: culvert\.dev\/mtls: 'hard'/ }])
  t.match(by('host-network'), [{ text: /shop\/exporter/ }])
  t.match(by('cilium/socket-lb'), [{ state: 'warn' }])
})

await t.test('after an installation: what is not there or not ready fails', async t => {
  const { cluster, report } = await scene(t)
  t.match(await report('--post'), { code: 1, findings: [{ id: 'installed', hint: 'culvert install' }] })
  shop(cluster)
  for (const object of objectsOf('default')) cluster.put(pathOf(object), object as never)
  cluster.add({
    kind: 'Pod',
    metadata: {
      name: 'culvert-agent-a',
      namespace: 'culvert-system',
      labels: { 'app.kubernetes.io/name': 'culvert-agent' },
    },
    spec: { nodeName: 'node-a', containers: [{ name: 'agent', image: 'localhost/culvert:0.0.1' }] },
    status: {
      phase: 'Pending',
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [{ restartCount: 3 }],
    },
  })
  const client = '/api/v1/namespaces/shop/pods/client-1'
  cluster.put(client, {
    ...cluster.objects.get(client)!,
    metadata: {
      name: 'client-1',
      namespace: 'shop',
      annotations: { 'culvert.dev/status': 'drifted: IPv4 nat (since 2026-01-01T00:00:00Z)' },
    },
  })
  const { code, findings } = await report()
  t.equal(code, 1)
  const texts = findings.map(({ state, text }) => `${state} ${text}`).join('\n')
  for (const expected of [
    /fail 0 of 2 replicas of the ca-server/,
    /fail no agent is ready on node-b/,
    /warn the container of the agent on node-a was started again 3 times/,
    /warn images: localhost\/culvert:0\.0\.1; this command is/,
    /fail the ca-server has not published its root/,
    /fail shop\/client-1: drifted: IPv4 nat/,
    /fail shop\/server-1: nobody has said anything/,
    /fail 0 of 2 pods are enrolled/,
  ])
    t.match(texts, expected)
  t.ok(findings.every(({ state, hint, id }) => state !== 'fail' || hint !== undefined || id === 'pods'))
})
