/** Which endpoints of a service are chosen from: what kube-proxy would do on the node. */
import t from 'tap'
import { Readiness } from '../../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  WorkloadStatus,
} from '../../../lib/proto/gen/istio/workload_pb.js'
import type { MeshWorld, PodShape } from '../../helpers/mesh-world.ts'
import { ECHO, places, setUp, shop } from '../../helpers/routes.ts'

const SERVICES = { [ECHO]: { 80: 8080 } }
const UNHEALTHY = { status: WorkloadStatus.UNHEALTHY }
const GOING = { terminating: true, serving: true }

/** The client's mesh, where the service has only the endpoints that a test puts there. */
function empty(): MeshWorld {
  return shop()
    .removePod('server')
    .pod({ name: 'client', ips: ['10.1.0.2'], more: at('z1', 'node-a') })
}

function at(zone: string, node: string) {
  return { locality: { region: 'r', zone }, node }
}

function echo(name: string, ip: string, more: Partial<PodShape> = {}): PodShape {
  return { name, ips: [ip], services: SERVICES, ...more }
}

/** Where a connection to the service may go, in order of addresses; the refusal when it may not. */
async function chosen(route: ReturnType<typeof setUp>, ip = '10.96.0.10', port = 80): Promise<unknown> {
  const decision = await route(ip, port)
  return decision.kind === 'refuse' ? decision.detail : places(decision).sort()
}

await t.test('an endpoint on its way out is used when nothing better is left, if it answers', async t => {
  const world = empty()
    .pod(echo('ready', '10.2.0.2'))
    .pod(echo('going', '10.2.0.3', { more: UNHEALTHY, info: GOING }))
    .pod(echo('gone', '10.2.0.4', { more: UNHEALTHY, info: { terminating: true } }))
    .pod(echo('starting', '10.2.0.5', { more: UNHEALTHY, info: { serving: false } }))
  const route = setUp(world)
  t.strictSame(await chosen(route), ['10.2.0.2|8080'])
  world.removePod('ready')
  t.strictSame(await chosen(route), ['10.2.0.3|8080'])
  world.removePod('going')
  t.equal(await chosen(route), 'service shop/echo has no endpoint: 2 not ready')
})

await t.test("readiness is each service's own word", async t => {
  const said = (readiness: Readiness) => ({ endpoints: [{ service: ECHO, readiness }] })
  const world = empty()
    .pod(echo('out', '10.2.0.2', { info: said(Readiness.NOT_READY) }))
    .pod(echo('in', '10.2.0.3', { more: UNHEALTHY, info: said(Readiness.READY) }))
    .pod(echo('going', '10.2.0.4', { info: said(Readiness.SERVING) }))
  const route = setUp(world)
  t.strictSame(await chosen(route), ['10.2.0.3|8080'])
  world.removePod('in')
  t.strictSame(await chosen(route), ['10.2.0.4|8080'])
})

await t.test('a service that publishes what is not ready has all of its endpoints', async t => {
  const world = empty()
    .pod(echo('ready', '10.2.0.2'))
    .pod(echo('starting', '10.2.0.3', { more: UNHEALTHY }))
    .service({
      name: 'echo',
      vips: ['10.96.0.10'],
      ports: { 80: 8080 },
      more: { loadBalancing: { healthPolicy: LoadBalancing_HealthPolicy.ALLOW_ALL } },
    })
  t.strictSame(await chosen(setUp(world)), ['10.2.0.2|8080', '10.2.0.3|8080'])
})

await t.test('hints: for this node, else for this zone, else nobody minds', async t => {
  const hinted = (zones: string[], nodes: string[] = []) => ({
    endpoints: [{ service: ECHO, zones, nodes }],
  })
  const world = empty()
    // Where an endpoint stands says nothing: a zone may be lent one.
    .pod(echo('lent', '10.2.0.2', { info: hinted(['z1']), more: at('z2', 'node-b') }))
    .pod(echo('far', '10.2.0.3', { info: hinted(['z2', 'z3']), more: at('z1', 'node-b') }))
  const route = setUp(world)
  t.strictSame(await chosen(route), ['10.2.0.2|8080'])

  world.pod(echo('bare', '10.2.0.4'))
  t.strictSame(await chosen(route), ['10.2.0.2|8080', '10.2.0.3|8080', '10.2.0.4|8080'], 'one has none')
  world.pod(echo('bare', '10.2.0.4', { more: UNHEALTHY }))
  t.strictSame(await chosen(route), ['10.2.0.2|8080'], 'an endpoint that is not ready needs none')
  world.removePod('lent')
  t.strictSame(await chosen(route), ['10.2.0.3|8080'], 'none is for us')

  world
    .pod(echo('far', '10.2.0.3', { info: hinted(['z1'], ['node-b']) }))
    .pod(echo('here', '10.1.0.5', { info: hinted(['z1'], ['node-a']) }))
  t.strictSame(await chosen(route), ['10.1.0.5|8080'], 'the node before the zone')
  world.removePod('here')
  t.strictSame(await chosen(route), ['10.2.0.3|8080'])
})

await t.test('internalTrafficPolicy Local is about cluster addresses only', async t => {
  const world = empty()
    .pod(echo('here', '10.1.0.5', { more: at('z1', 'node-a') }))
    .pod(echo('there', '10.2.0.2', { more: at('z1', 'node-b') }))
    .service({
      name: 'echo',
      vips: ['10.96.0.10'],
      ports: { 80: 8080 },
      info: { externalAddresses: [Uint8Array.of(203, 0, 113, 7)], nodePorts: { 30080: 80 } },
      more: {
        loadBalancing: { mode: LoadBalancing_Mode.STRICT, routingPreference: [LoadBalancing_Scope.NODE] },
      },
    })
  const route = setUp(world)
  t.strictSame(await chosen(route), ['10.1.0.5|8080'])
  t.strictSame(await chosen(route, '203.0.113.7'), ['10.1.0.5|8080', '10.2.0.2|8080'])
  t.strictSame(await chosen(route, '192.168.0.2', 30080), ['10.1.0.5|8080', '10.2.0.2|8080'])

  world.pod(echo('here', '10.1.0.5', { more: { ...at('z1', 'node-a'), ...UNHEALTHY }, info: GOING }))
  t.strictSame(await chosen(route), ['10.1.0.5|8080'], 'the one here that is going, not the one there')
  world.removePod('here')
  t.equal(await chosen(route), 'service shop/echo has no endpoint: 1 out of reach')
})
