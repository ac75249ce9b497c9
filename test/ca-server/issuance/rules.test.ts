import t from 'tap'
import { decide, type Question } from '../../../ca-server/issuance/rules.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubeObject } from '../../../lib/kube/objects.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod, type PodShape } from '../../helpers/kube-world.ts'

const NOW = Date.parse('2026-01-01T12:00:00Z')
const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'

function worldOf(...objects: KubeObject[]): World {
  const world = new World()
  world.replaceAll([kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED), ...objects])
  return world
}

function question(more: Partial<Question> & { node?: string | undefined } = {}): Question {
  const { node = 'node-a', ...rest } = more
  return {
    caller: {
      node,
      podName: 'agent',
      podUid: 'uid-agent',
      namespace: 'culvert-system',
      serviceAccount: 'culvert-agent',
      audience: 'culvert-ca',
    },
    impersonated: CLIENT,
    csrUri: CLIENT,
    podUid: 'uid-client',
    ...rest,
  }
}

await t.test('only a living, enrolled pod of its own on the node of the caller counts', async t => {
  const shapes: [expected: string, shape: PodShape][] = [
    ['allowed', {}],
    ['allowed', { phase: 'Pending', ips: [] }],
    ['allowed', { ready: false }],
    ['pod-other-node', { node: 'node-b' }],
    ['pod-other-identity', { serviceAccount: 'other' }],
    ['pod-finished', { phase: 'Succeeded' }],
    ['pod-finished', { phase: 'Failed' }],
    ['pod-finished', { phase: 'Unknown' }],
    ['pod-host-network', { hostNetwork: true }],
    ['pod-not-enrolled', { meta: { annotations: { 'culvert.dev/mesh': 'disabled' } } }],
    ['allowed', { meta: { deletionTimestamp: '2026-01-01T12:00:30Z' } }],
    ['allowed', { meta: { deletionTimestamp: '2026-01-01T11:59:50Z' } }],
    ['pod-terminating', { meta: { deletionTimestamp: '2026-01-01T11:59:00Z' } }],
  ]
  for (const [expected, shape] of shapes)
    for (const podUid of ['uid-client', undefined]) {
      const verdict = decide(worldOf(kubePod('client', shape)), 'cluster.local', question({ podUid }), NOW)
      // Without a uid, a pod elsewhere or of another account is simply none.
      const isNone = podUid === undefined && /other/.test(expected)
      t.equal(verdict.allowed ? 'allowed' : verdict.reason, isNone ? 'pod-unknown' : expected)
    }
})

await t.test('without a uid any good pod of the identity will do', t => {
  const world = worldOf(
    kubePod('one', { serviceAccount: 'client', phase: 'Failed' }),
    kubePod('two', { serviceAccount: 'client' }),
  )
  t.match(decide(world, 'cluster.local', question({ podUid: undefined }), NOW), {
    allowed: true,
    identity: CLIENT,
    node: 'node-a',
    pod: { metadata: { name: 'two' } },
  })
  t.end()
})

await t.test('a pod says for itself what its namespace does not', t => {
  const world = worldOf(
    kubeNamespace('legacy'),
    kubePod('client', { namespace: 'legacy', meta: { annotations: ENROLLED } }),
  )
  const identity = 'spiffe://cluster.local/ns/legacy/sa/client'
  const verdict = decide(world, 'cluster.local', question({ impersonated: identity, csrUri: identity }), NOW)
  t.ok(verdict.allowed)
  t.end()
})

await t.test('the identity must be ours, and the one in the request', t => {
  const world = worldOf(kubePod('client'))
  const reason = (more: Partial<Question>) => {
    const verdict = decide(world, 'cluster.local', question(more), NOW)
    return verdict.allowed ? 'allowed' : verdict.reason
  }
  const both = (text: string) => ({ impersonated: text, csrUri: text })
  t.equal(reason({ impersonated: undefined }), 'allowed')
  t.equal(reason({ csrUri: 'spiffe://cluster.local/ns/shop/sa/other' }), 'csr-names')
  t.equal(reason(both('https://cluster.local/ns/shop/sa/client')), 'identity-malformed')
  t.equal(reason(both(`${CLIENT}/`)), 'identity-malformed')
  t.equal(reason(both('spiffe://cluster.local.evil/ns/shop/sa/client')), 'trust-domain')
  t.equal(reason({ podUid: 'uid-nobody' }), 'pod-unknown')
  t.end()
})
