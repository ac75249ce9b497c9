import t from 'tap'
import {
  isAllowed,
  matches,
  namedPorts,
  type NetworkPolicy,
  type PolicyPod,
} from '../../../cli/kubernetes/network-policy.ts'
import { objectsOf } from '../../helpers/manifests.ts'

const pod = (namespace: string, app: string, ip?: string): PolicyPod => ({
  namespace,
  namespaceLabels: { 'kubernetes.io/metadata.name': namespace },
  labels: { app },
  ip,
})
const [client, server, stranger] = [
  pod('a', 'client', '10.0.0.5'),
  pod('a', 'server'),
  pod('b', 'client', '10.9.0.5'),
]

const policy = (spec: NetworkPolicy['spec'], namespace = 'a'): NetworkPolicy => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'p', namespace },
  spec,
})
const SERVER = { matchLabels: { app: 'server' } }

await t.test(
  'a pod that no policy selects takes everything; one that any selects takes what any allows',
  async t => {
    t.ok(isAllowed([], stranger, server, 80))
    t.ok(isAllowed([policy({ podSelector: { matchLabels: { app: 'other' } } })], stranger, server, 80))
    const deny = policy({ podSelector: {} })
    t.notOk(isAllowed([deny], client, server, 80))
    const allow = policy({ podSelector: SERVER, ingress: [{ ports: [{ port: 80 }] }] })
    t.ok(isAllowed([deny, allow], stranger, server, 80))
    t.notOk(isAllowed([deny, allow], stranger, server, 15008))
  },
)

await t.test('peers by pod, namespace, both and address', async t => {
  const from = (peer: object) => [policy({ podSelector: SERVER, ingress: [{ from: [peer] }] })]
  const client_ = { matchLabels: { app: 'client' } }
  for (const [peer, own, other] of [
    [{ podSelector: client_ }, true, false],
    [{ namespaceSelector: {} }, true, true],
    [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'b' } } }, false, true],
    [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'x' } } }, false, false],
    [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.9.0.0/16'] } }, true, false],
  ] as const) {
    t.equal(isAllowed(from(peer), client, server, 80), own, JSON.stringify(peer))
    t.equal(isAllowed(from(peer), stranger, server, 80), other, JSON.stringify(peer))
  }
})

await t.test('ports, ranges and directions', async t => {
  const range = policy({ podSelector: {}, ingress: [{ ports: [{ port: 15000, endPort: 15010 }] }] })
  t.ok(isAllowed([range], client, server, 15008))
  t.notOk(isAllowed([range], client, server, 15011))
  t.notOk(
    isAllowed(
      [policy({ podSelector: {}, ingress: [{ ports: [{ port: 80, protocol: 'UDP' }] }] })],
      client,
      server,
      80,
    ),
  )
  const egress = policy({
    podSelector: { matchLabels: { app: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ ports: [{ port: 80 }] }],
  })
  t.ok(isAllowed([egress], client, server, 80))
  t.notOk(isAllowed([egress], client, server, 81))
  t.ok(isAllowed([egress], server, client, 81), 'nothing is said of what comes in')
  t.strictSame(namedPorts([range, egress]), new Set([15000, 80]))
})

await t.test('selectors', async t => {
  const labels = { a: '1' }
  for (const [operator, key, values, expected] of [
    ['In', 'a', ['1', '2'], true],
    ['In', 'b', ['1'], false],
    ['NotIn', 'a', ['2'], true],
    ['NotIn', 'b', ['1'], true],
    ['Exists', 'a', [], true],
    ['DoesNotExist', 'a', [], false],
  ] as const)
    t.equal(
      matches({ matchExpressions: [{ key, operator, values }] }, labels),
      expected,
      `${operator} ${key}`,
    )
})

await t.test('ours let agents to the ca-server and Prometheus to the metrics, and nobody else', async t => {
  const ours = objectsOf('culvert.yaml').filter(
    ({ kind }) => kind === 'NetworkPolicy',
  ) as unknown as NetworkPolicy[]
  const named = (namespace: string, name: string): PolicyPod => ({
    ...pod(namespace, ''),
    labels: { 'app.kubernetes.io/name': name },
  })
  const [agent, ca] = [named('culvert-system', 'culvert-agent'), named('culvert-system', 'culvert-ca')]
  const [prometheus, other] = [named('monitoring', 'prometheus'), named('shop', 'web')]
  for (const [from, to, port, expected] of [
    [agent, ca, 15012, true],
    [agent, ca, 15014, false],
    [other, ca, 15012, false],
    [named('shop', 'culvert-agent'), ca, 15012, false],
    [prometheus, ca, 15014, true],
    [prometheus, ca, 15012, false],
    [prometheus, agent, 15020, true],
    [other, agent, 15020, false],
    [ca, other, 443, true],
    [agent, other, 443, false],
  ] as const)
    t.equal(
      isAllowed(ours, from, to, port),
      expected,
      `${JSON.stringify(from.labels)} → ${JSON.stringify(to.labels)}:${port}`,
    )
})
