import t, { type Test } from 'tap'
import { objectsOf } from '../../../cli/cluster/manifest.ts'
import { here, type Heard } from '../../helpers/here.ts'
import { StandInCluster } from '../../helpers/stand-in-cluster.ts'

async function scene(t: Test): Promise<{
  cluster: StandInCluster
  install: (...words: string[]) => Promise<Heard>
}> {
  const cluster = await StandInCluster.start(t)
  const words = cluster.words(t)
  return { cluster, install: (...more) => here(t, ['install', ...words, ...more]) }
}

/** What controllers and kubelets do with workloads: everything is ready at once. */
function everythingRuns(cluster: StandInCluster): void {
  cluster.reaction = object => {
    if (object.kind === 'Deployment')
      object['status'] = { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2 }
    if (object.kind === 'DaemonSet')
      object['status'] = {
        observedGeneration: 1,
        desiredNumberScheduled: 2,
        updatedNumberScheduled: 2,
        numberReady: 2,
      }
  }
}

await t.test('it applies every object, waits until all run, and does nothing the second time', async t => {
  const { cluster, install } = await scene(t)
  everythingRuns(cluster)
  const first = await install('--json')
  t.equal(first.code, 0, first.stderr)
  const { objects } = JSON.parse(first.stdout) as { objects: { object: string; outcome: string }[] }
  t.equal(objects.length, objectsOf('default').length)
  t.ok(objects.every(({ outcome }) => outcome === 'created'))
  t.equal(objects[0]?.object, 'Namespace culvert-system', 'the namespace before what is in it')
  const second = await install()
  t.match(second, { code: 0, stdout: /0 created, 0 changed, 14 unchanged/ })
})

await t.test('an upgrade says what it changed', async t => {
  const { cluster, install } = await scene(t)
  everythingRuns(cluster)
  await install()
  const { code, stdout } = await install(
    '--image',
    'registry.example:5000/culvert:9.9.9',
    '--profile',
    'strict',
  )
  t.equal(code, 0)
  t.match(stdout, /0 created, 2 changed/)
  t.match(
    stdout,
    /DaemonSet .*containers\[agent\]\.image: localhost\/culvert:\S+ → registry\.example:5000\/culvert:9\.9\.9/,
  )
  t.match(stdout, /Deployment .*env\[DEFAULT_MTLS\]: nothing → /)
})

await t.test('a dry run changes nothing', async t => {
  const { cluster, install } = await scene(t)
  const { code, stdout, stderr } = await install('--dry-run')
  t.equal(code, 0, stderr)
  t.match(stdout, /would be: 14 created/)
  t.strictSame(cluster.paths(/culvert/), [])
  t.ok(cluster.asked.every(({ method, query }) => method === 'GET' || query.get('dryRun') === 'All'))
})

await t.test('what does not come up is told with the reason, and what was applied stays', async t => {
  const { cluster, install } = await scene(t)
  cluster.add({
    kind: 'Pod',
    metadata: {
      name: 'culvert-ca-1',
      namespace: 'culvert-system',
      labels: { 'app.kubernetes.io/name': 'culvert-ca' },
    },
    status: { containerStatuses: [{ restartCount: 0, state: { waiting: { reason: 'ImagePullBackOff' } } }] },
  })
  const { code, stderr } = await install('--timeout', '0s')
  t.equal(code, 1)
  t.match(stderr, /0 of 2 replicas of the ca-server are ready \(culvert-ca-1: ImagePullBackOff\)/)
  t.match(stderr, /hint: .*culvert check --post/)
  t.equal(cluster.paths(/daemonsets/).length, 1)
})

await t.test('without the intermediate, existing-pki applies nothing', async t => {
  const { cluster, install } = await scene(t)
  const { code, stderr } = await install('--profile', 'existing-pki')
  t.equal(code, 2)
  t.match(stderr, /no Secret culvert-ca-intermediate/)
  t.match(stderr, /hint: .*create secret generic/)
  t.ok(cluster.asked.every(({ method }) => method === 'GET'))
})

await t.test('what the API server does wrong ends with a word for it', async t => {
  for (const [answer, code, stderr] of [
    [{ status: 401 }, 77, /hint: .*log in/],
    [{ status: 403, body: { message: 'you may not' } }, 77, /403: you may not\nhint: .*cluster-admin/],
    [{ status: 500 }, 1, /was answered 500/],
    [{ status: 200, body: '<html>' }, 1, /is not JSON/],
    ['cut', 1, /cannot be reached/],
  ] as const) {
    const { cluster, install } = await scene(t)
    cluster.fault = () => answer
    const heard = await install('--no-wait')
    t.equal(heard.code, code)
    t.match(heard.stderr, stderr)
    t.equal(heard.stdout, '')
  }
})

await t.test('a server that has too much to do is asked again', async t => {
  const { cluster, install } = await scene(t)
  let refusals = 0
  cluster.fault = ({ method }) => (method === 'PATCH' && refusals++ < 2 ? { status: 429 } : undefined)
  t.match(await install('--no-wait'), { code: 0, stdout: /14 created/ })
})

await t.test('images without a tag, and kubeconfigs without a cluster, are wrong usage', async t => {
  const { install } = await scene(t)
  for (const image of ['culvert', 'culvert:latest', 'x y:1'])
    t.match(await install('--image', image), { code: 2, stderr: /is not an image with a tag/ }, image)
  t.match(await install('--context', 'nope'), { code: 2, stderr: /no context 'nope'\nhint: it has stand-in/ })
  const { kubeconfig } = { kubeconfig: t.testdir({ k: 'a: [' }) }
  t.match(await here(t, ['install', '--kubeconfig', `${kubeconfig}/k`]), {
    code: 2,
    stderr: /kubeconfig is not usable/,
  })
})
