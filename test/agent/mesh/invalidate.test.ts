import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { Router } from '../../../agent/mesh/router.ts'
import { NOT_ENROLLED } from '../../../lib/enrolment.ts'
import { Action, Scope } from '../../../lib/proto/gen/istio/authorization_pb.js'
import { localPod, MeshWorld, serviceKey } from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const CLIENT = localPod('client', ['10.1.0.2'])
const ENROLMENT = { ...NOT_ENROLLED, mesh: true }

async function setUp() {
  const world = new MeshWorld()
    .node('node-a', ['192.168.0.1'], ['10.1.0.0/24', '10.2.0.0/24'])
    .service({ name: 'echo', vips: ['10.96.0.10'], ports: { 80: 80 } })
    .pod({ name: 'server', ips: ['10.2.0.2'], services: { [serviceKey('shop', 'echo')]: { 80: 80 } } })
    .pod({ name: 'bystander', ips: ['10.2.0.3'] })
    .synced()
  const router = new Router({ mesh: world.mesh, nodeName: 'node-a', unknownHoldMs: 1, log: quietLog().log })
  router.setLocalPod(CLIENT, ENROLMENT)
  await settle()
  const told: (string | undefined)[] = []
  router.onInvalidate(uid => told.push(uid))
  const route = (ip: string) => router.route({ podUid: CLIENT.uid, ip, port: 80 })
  /** What was told since the last time. */
  const news = async () => {
    await settle()
    return told.splice(0)
  }
  return { world, router, route, news }
}

// Changes are told a turn later, and what they invalidate a turn after that.
async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await nextTurn()
}

await t.test('a change of what was asked about calls every answer back, once a batch', async t => {
  const { world, route, news } = await setUp()
  await route('10.2.0.2')
  world.pod({ name: 'server', ips: ['10.2.0.2'], hbone: false })
  world.pod({ name: 'server', ips: ['10.2.0.2'], more: { capacity: 3 } })
  t.strictSame(await news(), [undefined])
})

await t.test('a change of what nobody asked about calls nothing back', async t => {
  const { world, route, news } = await setUp()
  await route('10.2.0.2')
  world.pod({ name: 'bystander', ips: ['10.2.0.3'], hbone: false })
  world.pod({ name: 'newcomer', ips: ['10.2.0.4'] })
  t.strictSame(await news(), [])
})

await t.test('a service that was asked about is watched with its endpoints', async t => {
  const { world, route, news } = await setUp()
  await route('10.96.0.10')
  world.pod({ name: 'server-2', ips: ['10.2.0.8'], services: { [serviceKey('shop', 'echo')]: { 80: 80 } } })
  t.strictSame(await news(), [undefined])
  world.removePod('server-2')
  t.strictSame(await news(), [], 'already called back, and not asked again')
  await route('10.96.0.10')
  world.removePod('server')
  t.strictSame(await news(), [undefined])
})

await t.test('an answer about an unknown address is called back when it becomes known', async t => {
  const { world, route, news } = await setUp()
  await route('10.2.0.99')
  world.pod({ name: 'late', ips: ['10.2.0.99'] })
  t.strictSame(await news(), [undefined])
})

await t.test('the source of an admitted connection is watched', async t => {
  const { world, router, news } = await setUp()
  const question = { podUid: CLIENT.uid, sourceIp: '10.2.0.3', identity: undefined, ip: '10.1.0.2', port: 80 }
  await router.admit(question)
  world.pod({ name: 'bystander', ips: ['10.2.0.3'], hbone: false })
  t.strictSame(await news(), [undefined])
})

await t.test('policies and nodes may concern anybody', async t => {
  const { world, news } = await setUp()
  world.policy({ name: 'deny', namespace: 'shop', scope: Scope.NAMESPACE, action: Action.DENY })
  t.strictSame(await news(), [undefined])
  world.node('node-c', ['192.168.0.3'], [])
  t.strictSame(await news(), [undefined])
})

await t.test("a pod's own settings and its own workload call back only its answers", async t => {
  const { world, router, news } = await setUp()
  router.setLocalPod(CLIENT, { ...ENROLMENT, strictInbound: true })
  t.strictSame(await news(), [CLIENT.uid])
  router.setLocalPod(CLIENT, { ...ENROLMENT, strictInbound: true })
  t.strictSame(await news(), [], 'the same again')
  world.pod({ name: 'client', ips: ['10.1.0.2'], info: { podUid: CLIENT.uid, probePorts: [8081] } })
  t.strictSame(await news(), [CLIENT.uid])
  router.removeLocalPod(CLIENT.uid)
  t.strictSame(await news(), [CLIENT.uid])
})

await t.test('what a server sends again unchanged calls nothing back', async t => {
  const { world, route, news } = await setUp()
  await route('10.2.0.2')
  world.pod({ name: 'server', ips: ['10.2.0.2'], services: { [serviceKey('shop', 'echo')]: { 80: 80 } } })
  t.strictSame(await news(), [])
})
