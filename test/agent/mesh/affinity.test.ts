import * as fc from 'fast-check'
import t from 'tap'
import { Affinity } from '../../../agent/mesh/affinity.ts'
import type { Endpoint } from '../../../agent/worker/messages.ts'
import { ECHO, places, setUp, shop } from '../../helpers/routes.ts'

const VIP = '10.96.0.10'

function endpoint(ip: string, weight = 1): Endpoint {
  return { ip, port: 80, weight, peer: {}, via: { kind: 'tcp', reason: 'peer-not-enrolled' } }
}

const many = (count: number) =>
  Array.from({ length: count }, (_, at) => endpoint(`10.2.${at >> 8}.${at & 255}`))

/** The first choice of each of 2000 pods, by address. */
function choices(endpoints: readonly Endpoint[], affinity = new Affinity()): Map<string, string> {
  const pods = Array.from({ length: 2000 }, (_, at) => `pod-${at}`)
  return new Map(pods.map(pod => [pod, affinity.inOrder(pod, ECHO, endpoints)[0]!.ip]))
}

await t.test('who is asked anew chooses the same, in whatever order the endpoints come', async t => {
  const endpoints = many(7)
  t.strictSame(choices(endpoints), choices(endpoints.toReversed()))
})

await t.test('clients spread over the endpoints, by their weights', async t => {
  const endpoints = [endpoint('10.2.0.1'), endpoint('10.2.0.2'), endpoint('10.2.0.3', 2)]
  const shares = Map.groupBy(choices(endpoints), ([, ip]) => ip)
  for (const { ip, weight } of endpoints) {
    const share = (shares.get(ip)?.length ?? 0) / 2000
    t.ok(Math.abs(share - weight / 4) < 0.05, `${ip}: ${share}`)
  }
})

await t.test('an endpoint that goes moves its own clients, one that comes nobody', async t => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), fc.nat(), (count, which) => {
      const affinity = new Affinity()
      const endpoints = many(count)
      const before = choices(endpoints, affinity)
      t.strictSame(choices([...endpoints, endpoint('10.9.9.9')], affinity), before)
      const gone = endpoints[which % count]!
      for (const [pod, ip] of choices(
        endpoints.filter(each => each !== gone),
        affinity,
      ))
        if (before.get(pod) !== gone.ip) t.equal(ip, before.get(pod))
    }),
    { numRuns: 5 },
  )
})

await t.test('a pod that is forgotten chooses anew', async t => {
  const affinity = new Affinity()
  const [first] = affinity.inOrder('pod', ECHO, [endpoint('10.9.9.9')])
  const both = many(300)
  t.equal(affinity.inOrder('pod', ECHO, [...both, first!])[0], first)
  affinity.forget('pod')
  t.not(affinity.inOrder('pod', ECHO, [...both, first!])[0], first)
})

await t.test('the router orders the endpoints of a service with affinity, and of no other', async t => {
  const world = shop()
  for (let at = 0; at < 20; at++)
    world.pod({ name: `pod-${at}`, ips: [`10.2.1.${at}`], services: { [ECHO]: { 80: 8080, 81: 8081 } } })
  const route = setUp(world)
  t.notMatch(await route(VIP, 80), { inOrder: true })
  const ports = { 80: 8080, 81: 8081 }
  world.service({ name: 'echo', vips: [VIP], ports, info: { clientAffinity: true } })
  const decision = await route(VIP, 80)
  t.match(decision, { kind: 'forward', inOrder: true })
  const [first] = places(decision)
  t.equal(places(await route(VIP, 81))[0], first!.replace('8080', '8081'), 'all ports at one endpoint')
  world.pod({ name: 'late', ips: ['10.2.2.1'], services: { [ECHO]: { 80: 8080 } } })
  t.equal(places(await route(VIP, 80))[0], first)
  // `require` leaves out those that are not enrolled before one is chosen.
  world.pod({ name: 'plain', ips: ['10.2.2.2'], hbone: false, services: { [ECHO]: { 80: 8080 } } })
  const strict = setUp(world, { requireOutbound: true })
  t.notOk(places(await strict(VIP, 80)).includes('10.2.2.2|8080'))
})
