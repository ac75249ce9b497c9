import * as fc from 'fast-check'
import t from 'tap'
import { CidrMap } from '../../../agent/mesh/cidr-map.ts'
import { Cidr, ipFromBytes } from '../../../lib/address.ts'

/** Addresses that share bits often enough to fall into common ranges. */
const bytes = fc.oneof(
  fc.array(fc.constantFrom(0, 1, 128, 255), { minLength: 4, maxLength: 4 }),
  fc.array(fc.constantFrom(0, 1, 128, 255), { minLength: 16, maxLength: 16 }),
)
const ip = bytes.map(each => ipFromBytes(Uint8Array.from(each)))
const cidr = fc
  .tuple(bytes, fc.nat(128))
  .map(([each, prefix]) => Cidr.fromBytes(Uint8Array.from(each), prefix % (each.length * 8 + 1)))

const ascending = (a: number, b: number) => a - b

await t.test('finds what a walk through all ranges finds, longest first', async t => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ cidr, value: fc.nat(3), isRemoved: fc.boolean() }), { maxLength: 12 }),
      fc.array(ip, { minLength: 1, maxLength: 10 }),
      (entries, ips) => {
        const map = new CidrMap<number>()
        for (const { cidr, value } of entries) map.add(cidr, value)
        const removed = new Set(
          entries.filter(each => each.isRemoved).map(({ cidr, value }) => `${cidr.text} ${value}`),
        )
        for (const { cidr, value, isRemoved } of entries) if (isRemoved) map.delete(cidr, value)
        const left = entries.filter(({ cidr, value }) => !removed.has(`${cidr.text} ${value}`))
        t.equal(map.size, new Set(left.map(({ cidr, value }) => `${cidr.text} ${value}`)).size)
        for (const ip of ips) {
          const hits = left.filter(({ cidr }) => cidr.contains(ip))
          const lengths = [...new Set(hits.map(({ cidr }) => cidr.prefix))].sort((a, b) => b - a)
          const wanted = lengths.map(length =>
            [...new Set(hits.filter(({ cidr }) => cidr.prefix === length).map(each => each.value))].sort(
              ascending,
            ),
          )
          t.strictSame(
            [...map.lookup(ip)].map(values => [...values].sort(ascending)),
            wanted,
          )
          t.equal(map.has(ip), hits.length > 0)
        }
      },
    ),
    { numRuns: 300 },
  )
})
