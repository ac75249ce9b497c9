import t from 'tap'
import { decide } from '../../../ca-server/issuance/rules.ts'
import { enrolmentOf, namespaceWishes } from '../../../ca-server/world/enrolment.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubePod } from '../../../lib/kube/objects.ts'
import { ENROLLED, kubeNamespace, kubePod } from '../../helpers/kube-world.ts'

const SIDECAR = { 'sidecar.istio.io/status': '{}' }

function worldOf(pod: KubePod, annotations = ENROLLED, labels = {}): World {
  const namespace = kubeNamespace('shop', annotations)
  const world = new World()
  world.replaceAll([{ ...namespace, metadata: { ...namespace.metadata, labels } }, pod])
  return world
}

await t.test('a pod of another mesh is out, with the reason, and has no certificate', async t => {
  const pod = kubePod('server', { meta: { annotations: SIDECAR } })
  const world = worldOf(pod)
  t.match(enrolmentOf(world, pod), { mesh: false, problems: ['pod has an Istio proxy: left alone'] })
  const identity = 'spiffe://cluster.local/ns/shop/sa/server'
  const verdict = decide(
    world,
    'cluster.local',
    {
      caller: {
        node: 'node-a',
        podName: 'agent',
        podUid: 'uid-agent',
        namespace: 'culvert-system',
        serviceAccount: 'culvert-agent',
        audience: 'culvert-ca',
      },
      impersonated: identity,
      csrUri: identity,
      podUid: pod.metadata.uid,
    },
    0,
  )
  t.match(verdict, { allowed: false, reason: 'pod-not-enrolled' })
})

await t.test('nothing is said of one that nobody wants in', async t => {
  const pod = kubePod('server', { meta: { annotations: SIDECAR } })
  t.match(enrolmentOf(worldOf(pod, {}), pod), { mesh: false, problems: [] })
})

await t.test(
  "a namespace in Istio's ambient mesh keeps its pods out, but for those that opted out of that",
  async t => {
    const labels = { 'istio.io/dataplane-mode': 'ambient' }
    const pod = kubePod('server')
    const world = worldOf(pod, ENROLLED, labels)
    t.match(enrolmentOf(world, pod), { mesh: false, problems: [/ambient mesh: left alone/] })
    t.match(
      namespaceWishes(world, world.namespace('shop')!),
      { mesh: false },
      'what agents hear before the pod',
    )
    const opted = kubePod('opted', { meta: { labels: { 'istio.io/dataplane-mode': 'none' } } })
    t.match(enrolmentOf(world, opted), { mesh: true, problems: [] })
  },
)
