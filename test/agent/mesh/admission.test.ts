import t from 'tap'
import type { KubeletProof } from '../../../agent/mesh/admission.ts'
import { Router, type RouterOptions } from '../../../agent/mesh/router.ts'
import type { AdmitQuestion } from '../../../agent/worker/messages.ts'
import { NOT_ENROLLED, type Enrolment } from '../../../lib/enrolment.ts'
import { Action, Scope } from '../../../lib/proto/gen/istio/authorization_pb.js'
import { NetworkMode } from '../../../lib/proto/gen/istio/workload_pb.js'
import { localPod, MeshWorld, uidOf } from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const SERVER = localPod('server', ['10.1.0.2'])
const CLIENT_ID = 'spiffe://cluster.local/ns/shop/sa/client'

function shop(options = {}): MeshWorld {
  return new MeshWorld(options)
    .node('node-a', ['192.168.0.1'], ['10.1.0.0/24'])
    .node('node-b', ['192.168.0.2'], ['10.2.0.0/24'])
    .pod({
      name: 'server',
      ips: ['10.1.0.2'],
      info: { podUid: SERVER.uid, probePorts: [8081] },
      more: { node: 'node-a' },
    })
    .pod({ name: 'client', ips: ['10.2.0.2'] })
    .pod({ name: 'old', namespace: 'legacy', ips: ['10.2.0.9'], hbone: false })
    .synced()
}

function setUp(
  world: MeshWorld,
  enrolment: Partial<Enrolment> = {},
  unknownHoldMs = 20,
  more: Partial<RouterOptions> = {},
) {
  const { log, lines } = quietLog()
  const router = new Router({ mesh: world.mesh, nodeName: 'node-a', unknownHoldMs, log, ...more })
  router.setLocalPod(SERVER, { ...NOT_ENROLLED, mesh: true, ...enrolment })
  const ask = (question: Partial<AdmitQuestion>) =>
    router.admit({
      podUid: SERVER.uid,
      sourceIp: '10.2.0.2',
      identity: undefined,
      ip: '10.1.0.2',
      port: 8080,
      ...question,
    })
  return { router, ask, lines }
}

await t.test('a verified peer comes in as mtls and is named by its workload', async t => {
  const { ask } = setUp(shop(), { strictInbound: true })
  t.strictSame(await ask({ identity: CLIENT_ID }), {
    kind: 'admit',
    reason: 'mtls',
    peer: {
      workload: 'client',
      namespace: 'shop',
      node: 'node-b',
      cluster: 'Kubernetes',
      identity: CLIENT_ID,
    },
  })
})

await t.test('a verified identity that is not that of the address stands alone', async t => {
  const identity = 'spiffe://cluster.local/ns/infra/sa/waypoint'
  t.strictSame(await setUp(shop()).ask({ identity }), {
    kind: 'admit',
    reason: 'mtls',
    peer: { identity, namespace: 'infra' },
  })
})

await t.test("a tunnel leads to the pod's own addresses only, and never to the agent's ports", async t => {
  const { ask } = setUp(shop())
  const identity = CLIENT_ID
  for (const ip of ['10.1.0.3', '127.0.0.1', '10.2.0.2'])
    t.match(await ask({ identity, ip }), { kind: 'refuse', reason: 'policy', detail: /not an address/ }, ip)
  for (const port of [15001, 15006, 15008])
    t.match(
      await ask({ identity, port }),
      { kind: 'refuse', reason: 'policy', detail: /self call/ },
      `${port}`,
    )
})

await t.test('plaintext comes in under the reason that says who was not enrolled', async t => {
  const world = shop()
    .pod({
      name: 'hosted',
      ips: ['192.168.0.3'],
      hbone: false,
      more: { networkMode: NetworkMode.HOST_NETWORK },
    })
    .pod({
      name: 'excluding',
      ips: ['10.2.0.5'],
      info: {
        enrolment: { mesh: true, excludeOutboundPorts: [8080], excludeOutboundCidrs: ['10.1.0.0/30'] },
      },
    })
  const { ask } = setUp(world)
  const reason = async (sourceIp: string, port = 8080) => {
    const decision = await ask({ sourceIp, port })
    return decision.kind === 'admit' ? decision.reason : decision
  }
  t.equal(await reason('10.2.0.9'), 'peer-not-enrolled')
  t.equal(await reason('10.2.0.2'), 'peer-not-enrolled', 'enrolled, but in the clear')
  t.equal(await reason('192.168.0.2'), 'peer-host-network')
  t.equal(await reason('192.168.0.3'), 'peer-host-network')
  t.equal(await reason('10.2.0.77'), 'peer-unknown')
  t.equal(await reason('203.0.113.5'), 'peer-external')
  t.equal(await reason('10.2.0.5'), 'excluded-port')
  t.equal(await reason('10.2.0.5', 9090), 'excluded-cidr')
  t.match(await ask({ sourceIp: '10.2.0.9' }), {
    peer: { workload: 'old', namespace: 'legacy', node: 'node-b' },
  })
})

await t.test('strict refuses plaintext from anybody, and says from whom', async t => {
  const { ask } = setUp(shop(), { strictInbound: true })
  t.match(await ask({ sourceIp: '10.2.0.9' }), {
    kind: 'refuse',
    reason: 'strict',
    detail: 'plaintext from pod legacy/old, and pod shop/server is strict',
    peer: { workload: 'old' },
  })
  t.match(await ask({ sourceIp: '203.0.113.5' }), {
    kind: 'refuse',
    reason: 'strict',
    detail: /203\.0\.113\.5/,
  })
})

await t.test("the kubelet's probes pass strict: from the pod's own node, to a declared port", async t => {
  const own: string[] = []
  const { ask } = setUp(shop(), { strictInbound: true }, 20, { ownAddresses: () => own })
  t.match(await ask({ sourceIp: '192.168.0.1', port: 8081 }), {
    kind: 'admit',
    reason: 'kubelet-probe',
    peer: { node: 'node-a' },
  })
  t.match(await ask({ sourceIp: '192.168.0.1', port: 8080 }), { reason: 'strict' }, 'another port')
  t.match(await ask({ sourceIp: '192.168.0.2', port: 8081 }), { reason: 'strict' }, 'another node')
  t.match(
    await ask({ sourceIp: '10.1.0.1', port: 8081 }),
    { reason: 'strict' },
    'an address not known as the node',
  )
  own.push('10.1.0.1')
  const later = await until(async () => {
    const decision = await ask({ sourceIp: '10.1.0.1', port: 8081 })
    return decision.kind === 'admit' ? decision : undefined
  })
  t.match(later, { reason: 'kubelet-probe' }, 'a bridge that came with the first pod')
})

await t.test('where it can be seen whose a connection is, the address of the node is not enough', async t => {
  const asked: unknown[] = []
  const isKubelet: KubeletProof = (source, destination) => {
    asked.push(source, destination)
    return source.port === 40_000
  }
  const { ask } = setUp(shop(), { strictInbound: true }, 20, { isKubelet })
  // An own address that nobody has told of is as good: what counts is the socket.
  for (const sourceIp of ['192.168.0.1', '10.1.0.1']) {
    const probe = { sourceIp, port: 8081 }
    t.match(await ask(probe), { kind: 'admit', reason: 'kubelet-probe', isForEach: true })
    t.strictSame(asked.splice(0), [], 'nothing is told of no connection')
    t.strictSame(await ask({ ...probe, sourcePort: 40_000 }), {
      kind: 'admit',
      reason: 'kubelet-probe',
      peer: { node: 'node-a' },
    })
    t.match(await ask({ ...probe, sourcePort: 40_001 }), { kind: 'refuse', reason: 'strict' })
    t.strictSame(asked.splice(0, 2), [
      { ip: sourceIp, port: 40_000 },
      { ip: '10.1.0.2', port: 8081 },
    ])
    asked.length = 0
  }
  for (const question of [
    { sourceIp: '192.168.0.1', port: 8080 },
    { sourceIp: '192.168.0.2', port: 8081 },
    { sourceIp: '10.2.0.9', port: 8081 },
  ])
    t.match(await ask({ ...question, sourcePort: 40_000 }), { kind: 'refuse', reason: 'strict' })
  t.strictSame(asked, [], 'another port, another node and a pod are no probes, whoever asks')
})

await t.test(
  'where nothing is refused, only what comes from the node is asked about, for its word',
  async t => {
    const { ask } = setUp(shop(), {}, 20, { isKubelet: ({ port }) => port === 40_000 })
    t.match(await ask({ sourceIp: '192.168.0.1', port: 8081 }), { reason: 'kubelet-probe', isForEach: true })
    t.match(await ask({ sourceIp: '192.168.0.1', port: 8081, sourcePort: 40_001 }), {
      kind: 'admit',
      reason: 'peer-host-network',
      peer: { node: 'node-a' },
    })
    const stranger = await ask({ sourceIp: '203.0.113.5', port: 8081 })
    t.match(stranger, { kind: 'admit', reason: 'peer-external' })
    t.notOk('isForEach' in stranger)
  },
)

await t.test('a caller that has gone is let in if nothing came of it, whoever it was', async t => {
  const isKubelet: KubeletProof = () => 'closed'
  const probe = { sourceIp: '192.168.0.1', port: 8081, sourcePort: 40_000 }
  t.match(await setUp(shop(), { strictInbound: true }, 20, { isKubelet }).ask(probe), {
    reason: 'kubelet-probe',
    otherwise: { kind: 'refuse', reason: 'strict' },
  })
  t.match(await setUp(shop(), {}, 20, { isKubelet }).ask(probe), {
    reason: 'kubelet-probe',
    otherwise: { kind: 'admit', reason: 'peer-host-network' },
  })
})

await t.test('where it cannot be told, the node’s addresses must do', async t => {
  const { ask } = setUp(shop(), { strictInbound: true }, 20, { isKubelet: () => undefined })
  t.match(await ask({ sourceIp: '192.168.0.1', port: 8081, sourcePort: 40_000 }), { reason: 'kubelet-probe' })
  t.match(await ask({ sourceIp: '203.0.113.5', port: 8081, sourcePort: 40_000 }), { kind: 'refuse' })
})

await t.test('a probe that comes before the pod is known waits for it', async t => {
  const world = shop().removePod('server')
  const { ask } = setUp(world, { strictInbound: true }, 30_000)
  const held = ask({ sourceIp: '192.168.0.1', port: 8081 })
  world.pod({ name: 'server', ips: ['10.1.0.2'], info: { podUid: SERVER.uid, probePorts: [8081] } })
  t.match(await held, { kind: 'admit', reason: 'kubelet-probe' })
})

await t.test("an earlier pod's probe ports are not the pod's", async t => {
  const world = shop().pod({
    name: 'server',
    ips: ['10.1.0.2'],
    info: { podUid: 'earlier', probePorts: [8081] },
  })
  const { ask } = setUp(world, { strictInbound: true })
  t.match(await ask({ sourceIp: '192.168.0.1', port: 8081 }), { kind: 'refuse', reason: 'strict' })
})

await t.test('a pod that discovery does not tell of is waited for once', async t => {
  const { ask, router, lines } = setUp(shop().removePod('server'))
  t.match(await ask({ sourceIp: '10.2.0.9' }), { kind: 'admit', reason: 'peer-not-enrolled' })
  t.match(await ask({ sourceIp: '10.2.0.9' }), { kind: 'admit', reason: 'peer-not-enrolled' })
  t.equal(router.counters.held, 1)
  t.match(lines, [{ level: 'warn', msg: /^discovery does not know the pod/, pod: 'server' }])
})

await t.test('excluded inbound ports pass strict and the policies', async t => {
  const world = shop().policy({
    name: 'deny-all',
    namespace: 'shop',
    scope: Scope.NAMESPACE,
    action: Action.ALLOW,
  })
  const { ask } = setUp(world, { strictInbound: true, excludeInboundPorts: [9100] })
  t.match(await ask({ sourceIp: '203.0.113.5', port: 9100 }), { kind: 'admit', reason: 'excluded-port' })
})

await t.test('policies decide on tunnelled and plaintext connections', async t => {
  const world = shop().policy({
    name: 'only-client',
    namespace: 'shop',
    scope: Scope.NAMESPACE,
    action: Action.ALLOW,
    rules: [
      {
        clauses: [
          {
            matches: [
              { principals: [{ matchType: { case: 'exact', value: 'cluster.local/ns/shop/sa/client' } }] },
            ],
          },
        ],
      },
    ],
  })
  const { ask } = setUp(world)
  t.match(await ask({ identity: CLIENT_ID }), { kind: 'admit', reason: 'mtls' })
  const other = 'spiffe://cluster.local/ns/shop/sa/other'
  t.match(await ask({ identity: other }), {
    kind: 'refuse',
    reason: 'policy',
    detail: 'no ALLOW policy matches',
  })
  t.match(await ask({}), { kind: 'refuse', reason: 'policy' }, 'plaintext has no identity')
})

await t.test('a policy that the workload names but nobody sent is counted and warned of once', async t => {
  const world = shop().pod({
    name: 'server',
    ips: ['10.1.0.2'],
    info: { podUid: SERVER.uid },
    more: { authorizationPolicies: ['istio-system/missing'] },
  })
  const { ask, router, lines } = setUp(world)
  for (let at = 0; at < 3; at++) t.match(await ask({ identity: CLIENT_ID }), { kind: 'admit' })
  t.equal(router.counters.missingPolicies, 3)
  t.equal(lines.filter(line => line['policy'] === 'istio-system/missing').length, 1)
})

await t.test('dry-run policies refuse nobody and are logged', async t => {
  const world = shop().policy({
    name: 'trial',
    namespace: 'shop',
    scope: Scope.NAMESPACE,
    action: Action.DENY,
    dryRun: true,
    rules: [{ clauses: [] }],
  })
  const { ask, router, lines } = setUp(world)
  t.match(await ask({ identity: CLIENT_ID }), { kind: 'admit', reason: 'mtls' })
  t.equal(router.counters.dryRunRefusals, 1)
  t.match(lines, [{ msg: 'dry-run policy would have refused', policy: 'shop/trial' }])
})

await t.test('nobody comes in before the policies have been received', async t => {
  const unsynced = setUp(new MeshWorld())
  t.match(await unsynced.ask({ identity: CLIENT_ID }), {
    kind: 'refuse',
    reason: 'policy',
    detail: /not been received/,
  })

  const world = new MeshWorld().pod({ name: 'server', ips: ['10.1.0.2'] })
  const { ask } = setUp(world, {}, 30_000)
  const held = ask({ identity: CLIENT_ID })
  world.synced()
  t.match(await held, { kind: 'admit', reason: 'mtls' })
})

await t.test('a pod that is not registered takes nobody in', async t => {
  const { router, ask } = setUp(shop())
  router.removeLocalPod(SERVER.uid)
  t.match(await ask({ identity: CLIENT_ID }), {
    kind: 'refuse',
    reason: 'unreachable',
    peer: { identity: CLIENT_ID },
  })
})

await t.test('a workload is found by its address when its uid is of another shape', async t => {
  const world = new MeshWorld({ clusterId: 'other' })
    .node('node-a', ['192.168.0.1'], [])
    .pod({ name: 'server', ips: ['10.1.0.2'], info: { podUid: SERVER.uid, probePorts: [8081] } })
    .synced()
  t.equal(world.mesh.workloadOf(SERVER)?.uid, uidOf('shop', 'server'))
  const { ask } = setUp(world, { strictInbound: true })
  t.match(await ask({ sourceIp: '192.168.0.1', port: 8081 }), { reason: 'kubelet-probe' })
})

/** Asks until there is an answer. */
async function until<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const answer = await ask()
    if (answer !== undefined) return answer
    await new Promise(resolve => setImmediate(resolve))
  }
}
