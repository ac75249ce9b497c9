import * as fc from 'fast-check'
import t from 'tap'
import { HpackDecoder } from '../../../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../../../agent/hbone/hpack/encoder.ts'
import { CulvertError } from '../../../../lib/errors.ts'
import { decodeList, fromHex, headerLists } from '../../../helpers/hpack.ts'

const MALFORMED = { name: 'CulvertError', code: 'PROTOCOL' }

await t.test('malformed blocks are refused with what is wrong about them', async t => {
  for (const [hex, message] of [
    ['80', /index 0 stands for nothing/],
    ['be', /index 62 is past the table's last, 61/],
    ['ff 80 01', /index 255 is past/],
    ['7f 00 00', /index 63 is past/],
    ['40', /ends where an integer is due/],
    ['40 03 61', /ends inside a string/],
    ['04 05 61 62', /ends inside a string/],
    ['40 01 61', /ends where an integer is due/],
    ['00 7f ff ff ff ff 07', /longer than 5 bytes/],
    ['82 20', /size update stands after a header/],
    ['3f e2 1f', /table size of 4097 is over the limit of 4096/],
    ['00 81 ff 00', /wrong padding/],
  ] as const)
    t.throws(() => decodeList(new HpackDecoder(), fromHex(hex)), { ...MALFORMED, message }, hex)
})

await t.test('a size update is allowed at the start of a block, more than one too', async t => {
  const decoder = new HpackDecoder()
  t.strictSame(decodeList(decoder, fromHex('40 01 61 01 62')), [['a', 'b']])
  t.strictSame(decodeList(decoder, fromHex('be')), [['a', 'b']])
  t.strictSame(decodeList(decoder, fromHex('20 3f e1 1f 82')), [[':method', 'GET']])
  t.throws(() => decodeList(decoder, fromHex('be')), MALFORMED, 'the size of nought emptied the table')
})

await t.test('a larger table is used only once the peer says so', async t => {
  const decoder = new HpackDecoder({ maxTableSize: 65_536 })
  const large = `40 01 61 7f 81 1f ${'62'.repeat(4096)}` // its entry is larger than 4096
  decodeList(decoder, fromHex(large))
  t.throws(() => decodeList(decoder, fromHex('be')), MALFORMED)
  const grown = new HpackDecoder({ maxTableSize: 65_536 })
  t.equal(decodeList(grown, fromHex(`3f e1 ff 03 ${large} be`)).length, 2)
})

await t.test(
  'after a smaller limit was acknowledged the next block must begin by shrinking the table',
  async t => {
    const demanding = () => {
      const decoder = new HpackDecoder()
      decodeList(decoder, fromHex('40 01 61 01 62'))
      decoder.setMaxTableSize(64)
      return decoder
    }
    t.throws(() => decodeList(demanding(), fromHex('82')), {
      ...MALFORMED,
      message: /does not shrink the table to 64/,
    })
    t.throws(() => decodeList(demanding(), fromHex('')), MALFORMED, 'nor may it be empty')
    t.strictSame(decodeList(demanding(), fromHex('3f 21 be')), [['a', 'b']])
    t.strictSame(
      decodeList(demanding(), fromHex('20 82')),
      [[':method', 'GET']],
      'smaller than asked is fine',
    )

    const raisedAgain = demanding()
    raisedAgain.setMaxTableSize(4096)
    t.throws(
      () => decodeList(raisedAgain, fromHex('3f e1 1f 82')),
      MALFORMED,
      'the low point has to be named',
    )
    const low = demanding()
    low.setMaxTableSize(4096)
    t.strictSame(decodeList(low, fromHex('3f 21 3f e1 1f be')), [['a', 'b']])

    const unconcerned = new HpackDecoder()
    unconcerned.setMaxTableSize(65_536)
    t.strictSame(
      decodeList(unconcerned, fromHex('82')),
      [[':method', 'GET']],
      'a larger limit asks for nothing',
    )
  },
)

await t.test(
  'a list over its limit is reported, not handed on past it, and keeps the table in step',
  async t => {
    const encoder = new HpackEncoder()
    const decoder = new HpackDecoder({ maxHeaderListSize: 100 })
    const seen: string[] = []
    const emit = (name: string) => void seen.push(name)
    const list = [
      ['first', 'x'.repeat(20)],
      ['second', 'y'.repeat(20)],
      ['third', ''],
    ] as const
    t.equal(decoder.decode(encoder.encode(list), emit), false)
    t.strictSame(seen, ['first'], 'nothing is handed on once the limit is passed, however small')
    seen.length = 0
    t.equal(decoder.decode(encoder.encode([list[1]]), emit), true)
    t.strictSame(seen, ['second'], 'the next block finds what the long one left in the table')
  },
)

await t.test('the limit counts 32 bytes for each header', async t => {
  const decode = (limit: number) =>
    new HpackDecoder({ maxHeaderListSize: limit }).decode(fromHex('82 82'), () => undefined)
  t.equal(decode(2 * (':method'.length + 'GET'.length + 32)), true)
  t.equal(decode(2 * (':method'.length + 'GET'.length + 32) - 1), false)
})

await t.test('a block of references to a large entry hands on no more than the limit', async t => {
  const decoder = new HpackDecoder({ maxHeaderListSize: 64 * 1024 })
  const value = Buffer.alloc(4000, 'v')
  const entry = Buffer.concat([fromHex('40 01 61 7f a1 1e'), value])
  t.equal(decodeList(decoder, entry)[0]![1].length, 4000)
  let handedOn = 0
  const complete = decoder.decode(Buffer.alloc(128 * 1024, 0xbe), (name, value) => {
    handedOn += name.length + value.length
  })
  t.equal(complete, false)
  t.ok(handedOn <= 64 * 1024, `${handedOn} bytes`)
})

await t.test('a string longer than any before it is read whole, Huffman coded too', async t => {
  const decoder = new HpackDecoder({ maxHeaderListSize: 1024 * 1024 })
  const coded = Buffer.concat([fromHex('00 01 61 ff 81 fe 01'), Buffer.alloc(32_640, 0)]) // 127 + 1 + 254 * 128
  t.strictSame(decodeList(decoder, coded), [['a', '0'.repeat((32_640 * 8) / 5)]])
})

await t.test('names and values come as the bytes that were sent', async t => {
  const list = [['\u0000 Ä', 'ÿ\r\n\u007f']] as const
  t.strictSame(decodeList(new HpackDecoder(), new HpackEncoder().encode(list)), list)
})

await t.test('a view into a larger buffer is read within its bounds', async t => {
  const around = Uint8Array.from([0xff, 0x82, 0xff])
  t.strictSame(decodeList(new HpackDecoder(), around.subarray(1, 2)), [[':method', 'GET']])
})

await t.test('random bytes give headers or a PROTOCOL error, and nothing else', async () => {
  const blocks = fc.array(fc.uint8Array({ maxLength: 120 }), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(blocks, blocks => {
      const decoder = new HpackDecoder({ maxHeaderListSize: 500 })
      return blocks.every(block => isSound(decoder, block))
    }),
    { numRuns: 1000 },
  )
})

await t.test(
  'honest blocks with broken bytes give headers or a PROTOCOL error, and nothing else',
  async () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(fc.array(headerLists(), { minLength: 1, maxLength: 4 }), damage, (lists, damage) => {
        const encoder = new HpackEncoder()
        const decoder = new HpackDecoder()
        return lists.every(list => {
          const block = Buffer.from(encoder.encode(list))
          for (const [at, byte] of damage) if (block.length > 0) block[at % block.length] = byte
          return isSound(decoder, block)
        })
      }),
      { numRuns: 500 },
    )
  },
)

/** Reports whether the block was either read within the limits or refused as malformed. */
function isSound(decoder: HpackDecoder, block: Uint8Array): boolean {
  let size = 0
  try {
    decoder.decode(block, (name, value) => (size += name.length + value.length + 32))
  } catch (err) {
    return err instanceof CulvertError && err.code === 'PROTOCOL'
  }
  return size <= 16 * 1024
}
