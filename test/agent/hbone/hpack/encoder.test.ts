import * as fc from 'fast-check'
import t from 'tap'
import { HpackDecoder } from '../../../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../../../agent/hbone/hpack/encoder.ts'
import { decodeList, headerLists, toHex } from '../../../helpers/hpack.ts'

const REQUEST = [
  [':method', 'CONNECT'],
  [':authority', '10.1.2.3:8080'],
  ['baggage', 'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,service.name=client'],
  ['forwarded', 'for="10.1.2.2:51234"'],
  ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'],
] as const

await t.test('what repeats becomes one byte, what never repeats stays out of the table', async t => {
  const encoder = new HpackEncoder()
  t.equal(encoder.encode([[':status', '200']]).length, 1, 'from the static table at once')
  encoder.encode(REQUEST)
  t.equal(encoder.encode(REQUEST.slice(0, 3)).length, 3)
  const unique = REQUEST.slice(3)
  const literal = unique.reduce((sum, [name, value]) => sum + name.length + value.length + 3, 0)
  t.equal(encoder.encode(unique).length, literal)
  t.equal(encoder.encode(unique).length, literal)
})

await t.test('secrets are marked never to be indexed', async t => {
  const encoder = new HpackEncoder()
  for (let round = 0; round < 2; round++)
    t.equal(toHex(encoder.encode([['authorization', 'Bearer x']])), '1f0808' + toHex(Buffer.from('Bearer x')))
})

await t.test('a header that would fill the table stays out of it', async t => {
  const encoder = new HpackEncoder()
  const large = ['x-large', 'x'.repeat(4000)] as const
  encoder.encode(REQUEST)
  t.equal(encoder.encode([large]).length, encoder.encode([large]).length)
  t.equal(encoder.encode(REQUEST.slice(0, 3)).length, 3, 'and pushes nothing out')
})

await t.test('a peer without a table is told so, and sent literals', async t => {
  const encoder = new HpackEncoder()
  encoder.encode(REQUEST)
  encoder.setPeerMaxTableSize(0)
  const first = encoder.encode([['x-a', 'b']])
  t.equal(toHex(first), '200003782d610162')
  t.equal(toHex(encoder.encode([['x-a', 'b']])), '0003782d610162', 'once is enough')
})

await t.test(
  'a table that shrank and grew again between two blocks is announced with its low point',
  async t => {
    const encoder = new HpackEncoder()
    encoder.setPeerMaxTableSize(100)
    encoder.setPeerMaxTableSize(1_000_000)
    t.equal(toHex(encoder.encode([])), '3f453fe11f', '100, then no more than our own limit of 4096')
    encoder.setPeerMaxTableSize(4096)
    t.equal(toHex(encoder.encode([])), '', 'what changes nothing is not announced')
  },
)

await t.test('a larger limit of our own is used once the peer allows it', async t => {
  const encoder = new HpackEncoder({ maxTableSize: 8192 })
  t.equal(toHex(encoder.encode([])), '')
  encoder.setPeerMaxTableSize(65_536)
  t.equal(toHex(encoder.encode([])), '3fe13f')
})

await t.test('a character that is not one byte is refused, and the table stays as it was', async t => {
  const encoder = new HpackEncoder()
  t.throws(() => encoder.encode([...REQUEST, ['x-name', 'Ω']]), { code: 'PROTOCOL', message: /'x-name'/ })
  t.strictSame(decodeList(new HpackDecoder(), encoder.encode(REQUEST)), REQUEST)
})

await t.test('a block larger than any before it is whole', async t => {
  const list = [['x-long', 'v'.repeat(100_000)]] as const
  const decoder = new HpackDecoder({ maxHeaderListSize: 200_000 })
  t.strictSame(decodeList(decoder, new HpackEncoder().encode(list)), list)
})

await t.test('blocks made one after the other do not share memory', async t => {
  const encoder = new HpackEncoder()
  const first = encoder.encode([['x-a', 'first']])
  const copy = toHex(first)
  encoder.encode([['x-b', 'second']])
  t.equal(toHex(first), copy)
})

await t.test('every sequence of lists and table sizes comes back as it was', async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ list: headerLists() }) },
    {
      weight: 1,
      arbitrary: fc.record({ tableSize: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 10_000 })) }),
    },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.nat({ max: 10_000 }), (steps, own) => {
      const encoder = new HpackEncoder({ maxTableSize: own })
      const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1_000_000 })
      for (const step of steps) {
        if ('list' in step) {
          const decoded = decodeList(decoder, encoder.encode(step.list))
          if (JSON.stringify(decoded) !== JSON.stringify(step.list)) return false
        } else {
          decoder.setMaxTableSize(step.tableSize)
          encoder.setPeerMaxTableSize(step.tableSize)
        }
      }
      return true
    }),
    { numRuns: 300 },
  )
})
