import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { RequestQueue } from '../../../agent/mesh/request-queue.ts'
import { localPod, MeshWorld } from '../../helpers/mesh-world.ts'

await t.test("a pod's enrolment is unknown until its namespace is known", async t => {
  const world = new MeshWorld()
  const pod = localPod('a', ['10.1.0.2'], { annotations: { 'culvert.dev/mtls': 'strict' } })
  t.equal(world.mesh.enrolmentOf(pod), undefined)
  world.namespace('shop', { mesh: true, requireOutbound: true })
  t.match(world.mesh.enrolmentOf(pod), { mesh: true, strictInbound: true, requireOutbound: true })
  t.equal(world.mesh.enrolmentOf(pod), world.mesh.enrolmentOf({ ...pod }), 'the same is the same object')
  const out = { ...pod, annotations: { 'culvert.dev/mesh': 'disabled' } }
  t.match(world.mesh.enrolmentOf(out), { mesh: false, requireOutbound: true })
  world.remove('culvert.v1.Namespace', 'shop')
  t.equal(world.mesh.enrolmentOf(pod), undefined)
  t.match(world.mesh.enrolmentOf(out), { mesh: false }, 'a pod may say itself that it is not in the mesh')
  const self = { ...pod, annotations: { 'culvert.dev/mesh': 'enabled' } }
  t.match(world.mesh.enrolmentOf(self), { mesh: true, strictInbound: false }, 'or that it is')
})

await t.test(
  "a pod's service account is what its source says, else what the server says of its uid",
  async t => {
    const world = new MeshWorld()
    const pod = localPod('a', ['10.1.0.2'], { serviceAccount: undefined })
    t.equal(world.mesh.serviceAccountOf(pod), undefined)
    const here = { name: 'a', more: { node: 'node-a', serviceAccount: 'billing' } }
    world.pod({ ...here, info: { podUid: 'earlier', terminating: true } })
    t.equal(world.mesh.serviceAccountOf(pod), undefined, 'what is said of an earlier pod does not count')
    t.equal(world.mesh.isTerminating(pod), false)
    t.equal(world.mesh.ownPod('earlier')?.name, 'a')
    world.pod({ ...here, info: { podUid: pod.uid } })
    t.equal(world.mesh.serviceAccountOf(pod), 'billing', 'told before the pod has an address')
    t.equal(world.mesh.serviceAccountOf({ ...pod, serviceAccount: 'own' }), 'own')
    t.equal(world.mesh.ownPod('earlier'), undefined)
    t.equal(world.mesh.ownPod(pod.uid)?.serviceAccount, 'billing')
    world.pod({ ...here, info: { podUid: pod.uid, terminating: true } })
    t.equal(world.mesh.isTerminating(pod), true)
    t.equal(world.mesh.isTerminating({ ...pod, uid: 'later' }), false)
    t.equal(world.mesh.isTerminating({ ...pod, uid: 'later', terminating: true }), true)
    world.removePod('a')
    t.equal(world.mesh.ownPod(pod.uid), undefined)
    world.pod({ ...here, info: { podUid: pod.uid }, more: { node: 'node-b' } })
    t.equal(world.mesh.ownPod(pod.uid), undefined, 'a pod of another node is none of ours')
  },
)

await t.test("the server's word on the very pod comes before the namespace's and the pod's own", async t => {
  const world = new MeshWorld().namespace('shop', { mesh: true })
  const pod = localPod('a', ['10.1.0.2'])
  world.pod({ name: 'a', ips: ['10.1.0.2'], info: { podUid: 'earlier', enrolment: { mesh: false } } })
  t.match(world.mesh.enrolmentOf(pod), { mesh: true }, 'what was said of an earlier pod does not count')
  world.pod({
    name: 'a',
    ips: ['10.1.0.2'],
    info: { podUid: pod.uid, enrolment: { mesh: true, strictInbound: true, excludeInboundPorts: [80] } },
  })
  t.match(world.mesh.enrolmentOf(pod), { mesh: true, strictInbound: true, excludeInboundPorts: [80] })
})

await t.test("without Culvert's types a default stands for every namespace", async t => {
  const pod = localPod('a', ['10.1.0.2'], { annotations: { 'culvert.dev/mtls': 'strict' } })
  t.match(new MeshWorld({ culvertTypes: false }).mesh.enrolmentOf(pod), { mesh: false })
  const world = new MeshWorld({ culvertTypes: false, defaultWishes: { mesh: true, problems: [] } })
  t.match(world.mesh.enrolmentOf(pod), { mesh: true, strictInbound: true })
})

await t.test('who asked is told which namespaces and trust domains changed, once a batch', async t => {
  const world = new MeshWorld()
  const told: string[][] = []
  world.mesh.onEnrolmentChange(namespaces => told.push([...namespaces].sort()))
  world.namespace('shop', {}).namespace('legacy', {}).namespace('shop', { mesh: true })
  await nextTurn()
  await nextTurn()
  t.strictSame(told.splice(0), [['legacy', 'shop']])
  world.pod({ name: 'here', ips: ['10.1.0.2'], info: { podUid: 'x' }, more: { node: 'node-a' } })
  world.pod({ name: 'there', namespace: 'far', ips: ['10.2.0.2'], more: { node: 'node-b' } })
  await nextTurn()
  await nextTurn()
  t.strictSame(told.splice(0), [['shop']], 'only pods of this node matter')
  const here = { name: 'here', ips: ['10.1.0.2'] }
  world.pod({ ...here, info: { podUid: 'x', probePorts: [80] }, more: { node: 'node-a' } })
  await nextTurn()
  await nextTurn()
  t.strictSame(told, [], 'and of those only what bears on it')
  world.pod({ ...here, info: { podUid: 'x', terminating: true }, more: { node: 'node-a' } })
  await nextTurn()
  await nextTurn()
  t.strictSame(told, [['shop']])
})

await t.test('a wait for the first picture ends with its signal', async t => {
  const abort = new AbortController()
  const waiting = new MeshWorld().mesh.whenSynced(abort.signal)
  abort.abort()
  await t.rejects(waiting, { code: 'CLOSED' })
  await t.rejects(new MeshWorld().mesh.whenSynced(AbortSignal.abort()))
  await new MeshWorld().synced().mesh.whenSynced(AbortSignal.abort())
})

await t.test('a dump is plain JSON that names everything', async t => {
  const world = new MeshWorld()
    .namespace('shop', { mesh: true })
    .node('node-a', ['192.168.0.1'], ['10.1.0.0/24'])
    .pod({ name: 'a', ips: ['10.1.0.2'], services: { 'shop/echo.shop.svc.cluster.local': { 80: 8080 } } })
    .service({ name: 'echo', vips: ['10.96.0.1', '10.97.0.0/16'], ports: { 80: 8080 } })
    .synced()
  t.match(JSON.parse(JSON.stringify(world.mesh.dump())), {
    synced: true,
    sizes: { workloads: 1, services: 1 },
    workloads: [{ name: 'a', services: { 'shop/echo.shop.svc.cluster.local': { 80: 8080 } } }],
    services: [{ vips: ['10.96.0.1'], ranges: ['10.97.0.0/16'], ports: { 80: 8080 }, endpoints: [/\/a$/] }],
    namespaces: [{ name: 'shop', wishes: { mesh: true } }],
    nodes: [{ name: 'node-a', podCidrs: ['10.1.0.0/24'] }],
  })
})

await t.test(
  'a queue of requests gives them in order, ends when closed, and does not grow without end',
  async t => {
    const queue = new RequestQueue<number>(2)
    queue.push(1)
    queue.push(2)
    t.throws(() => queue.push(3), { code: 'DISCOVERY', message: /does not read/ })
    const iterator = queue[Symbol.asyncIterator]()
    t.strictSame(
      [await iterator.next(), await iterator.next()].map(each => each.value),
      [1, 2],
    )
    const next = iterator.next()
    queue.push(4)
    t.equal((await next).value, 4)
    const last = iterator.next()
    queue.close()
    t.equal((await last).done, true)
  },
)
