import * as fc from 'fast-check'
import t from 'tap'
import { Cidr } from '../../../lib/address.ts'
import { AddressPool, nodeIps, podCidrs } from '../../../lab/net/plan.ts'

await t.test('nodes have addresses and ranges of their own', async t => {
  t.strictSame(nodeIps(1), ['10.99.0.11', 'fd99::b'])
  t.strictSame(podCidrs(17), ['10.98.17.0/24', 'fd98:11::/64'])
  t.throws(() => nodeIps(201), { code: 'LAB' })
  const all = Array.from({ length: 200 }, (_, at) => [...nodeIps(at + 1), ...podCidrs(at + 1)]).flat()
  t.equal(new Set(all).size, all.length)
})

await t.test('an address is never had by two, and those that were freed come back last', async t => {
  const pool = AddressPool.forPods(1)
  const first = pool.take()
  t.strictSame(first, ['10.98.1.2', 'fd98:1::2'])
  pool.free(first)
  t.strictSame(pool.take(), ['10.98.1.3', 'fd98:1::3'])
  pool.claim(['10.98.1.4'])
  t.throws(() => pool.claim(['10.98.1.4']), { message: /already in use/ })
  t.throws(() => pool.claim(['10.98.2.4']), { message: /not in 10\.98\.1\.0\/24 or fd98:1::\/64/ })
  t.strictSame(pool.take(), ['10.98.1.5', 'fd98:1::5'])
})

await t.test('any order of taking and giving back holds that', async t => {
  const steps = fc.array(fc.oneof(fc.constant('take' as const), fc.nat(300)), { maxLength: 400 })
  const property = fc.property(steps, steps => {
    const pool = AddressPool.forPods(3)
    const cidrs = podCidrs(3).map(cidr => Cidr.parse(cidr))
    const held: string[][] = []
    for (const step of steps)
      if (step !== 'take') {
        const [pair] = held.splice(step, 1)
        if (pair) pool.free(pair)
      } else if (held.length < 250) {
        const pair = pool.take()
        if (!pair.every((ip, at) => cidrs[at]!.contains(ip))) return false
        held.push(pair)
      }
    const flat = held.flat()
    return new Set(flat).size === flat.length
  })
  t.doesNotThrow(() => fc.assert(property))
})

await t.test('a range that is used up says so', async t => {
  const pool = AddressPool.forPods(1)
  const taken = Array.from({ length: 253 }, () => pool.take()[0])
  t.equal(new Set(taken).size, 253)
  t.throws(() => pool.take(), { code: 'LAB', message: /no address is left in 10\.98\.1\.0\/24/ })
})

await t.test('services have a range that goes past one byte', async t => {
  const pool = AddressPool.forServices()
  const pairs = Array.from({ length: 600 }, () => pool.take())
  t.strictSame(pairs[0], ['10.97.0.10', 'fd97::a'])
  t.strictSame(pairs[599], ['10.97.2.97', 'fd97::261'])
})
