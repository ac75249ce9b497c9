import * as fc from 'fast-check'
import t from 'tap'
import { pickEndpoint } from '../../../agent/proxy/outbound.ts'

const endpoints = fc.array(fc.record({ weight: fc.nat(100) }), { maxLength: 8 })
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

await t.test('what is picked was offered and not tried, as long as anything is left', t => {
  fc.assert(
    fc.property(endpoints, fc.array(fc.boolean()), chance, (offered, marks, random) => {
      const tried = new Set(offered.filter((_, at) => marks[at]))
      const left = offered.filter(endpoint => !tried.has(endpoint))
      const picked = pickEndpoint(offered, tried, () => random)
      return picked === undefined ? left.length === 0 : left.includes(picked)
    }),
  )
  t.end()
})

await t.test('weight 0 is picked only when nothing else is left', t => {
  fc.assert(
    fc.property(endpoints, chance, (offered, random) => {
      const picked = pickEndpoint(offered, new Set(), () => random)
      return picked === undefined || picked.weight > 0 || offered.every(({ weight }) => weight === 0)
    }),
  )
  t.end()
})

await t.test('endpoints are picked in proportion to their weights', t => {
  fc.assert(
    fc.property(endpoints, offered => {
      const total = offered.reduce((sum, { weight }) => sum + weight, 0)
      fc.pre(total > 0)
      // Every place of the range once: each endpoint is met as often as its weight says.
      const met = new Map<object, number>()
      for (let at = 0; at < total; at++) {
        const picked = pickEndpoint(offered, new Set(), () => (at + 0.5) / total)!
        met.set(picked, (met.get(picked) ?? 0) + 1)
      }
      return offered.every(endpoint => (met.get(endpoint) ?? 0) === endpoint.weight)
    }),
  )
  t.end()
})

await t.test('one after the other, every endpoint is tried once', t => {
  fc.assert(
    fc.property(endpoints, fc.infiniteStream(chance), (offered, random) => {
      const tried = new Set<{ weight: number }>()
      for (;;) {
        const picked = pickEndpoint(offered, tried, () => random.next().value!)
        if (!picked) return tried.size === offered.length
        if (tried.has(picked)) return false
        tried.add(picked)
      }
    }),
  )
  t.end()
})
