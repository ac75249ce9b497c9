import * as fc from 'fast-check'
import t from 'tap'
import { CODE_LENGTHS, huffmanDecode, huffmanRoom } from '../../../../agent/hbone/hpack/huffman.ts'

/** Code words from their lengths, the naive way: strings of ones and zeroes. */
const WORDS = canonicalWords(CODE_LENGTHS)

function canonicalWords(lengths: readonly number[]): string[] {
  const words: string[] = Array.from({ length: lengths.length })
  let next = 0n
  for (let bits = 1; bits <= 30; bits++) {
    next <<= 1n
    for (const [symbol, length] of lengths.entries())
      if (length === bits) words[symbol] = (next++).toString(2).padStart(bits, '0')
  }
  return words
}

function encode(text: Uint8Array): Buffer {
  let bits = [...text].map(byte => WORDS[byte]).join('')
  bits = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1')
  return fromBits(bits)
}

function fromBits(bits: string): Buffer {
  return Buffer.from(bits.match(/.{8}/g)?.map(byte => parseInt(byte, 2)) ?? [])
}

function decode(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(huffmanRoom(bytes.length))
  return out.subarray(0, huffmanDecode(bytes, 0, bytes.length, out))
}

await t.test('the code is the one of RFC 7541 Appendix B', async t => {
  t.equal(WORDS.length, 257)
  const words = Object.fromEntries(
    [0, 1, 10, 32, 48, 50, 64, 88, 90, 92, 97, 122, 127, 128, 130, 195, 199, 225, 249, 255, 256].map(
      symbol => [symbol, `${parseInt(WORDS[symbol]!, 2).toString(16)}/${WORDS[symbol]!.length}`],
    ),
  )
  t.strictSame(words, {
    0: '1ff8/13',
    1: '7fffd8/23',
    10: '3ffffffc/30',
    32: '14/6',
    48: '0/5',
    50: '2/5',
    64: '1ffa/13',
    88: 'fc/8',
    90: 'fd/8',
    92: '7fff0/19',
    97: '3/5',
    122: '7b/7',
    127: 'ffffffc/28',
    128: 'fffe6/20',
    130: 'fffe7/20',
    195: '7fff1/19',
    199: '1ffffec/25',
    225: 'fffff3/24',
    249: 'ffffffe/28',
    255: '3ffffee/26',
    256: '3fffffff/30',
  })
  const space = CODE_LENGTHS.reduce((sum, bits) => sum + 2 ** (30 - bits), 0)
  t.equal(space, 2 ** 30, 'it leaves no word unused')
})

await t.test('any bytes come back from the naive encoding', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), text => Buffer.compare(decode(encode(text)), text) === 0),
  )
})

await t.test('every byte value comes back, alone and between others', async t => {
  for (let byte = 0; byte < 256; byte++) {
    const text = Buffer.from([97, byte, 48, byte, byte])
    t.strictSame(decode(encode(text)), text)
  }
})

await t.test('padding is at most seven bits, all ones', async t => {
  t.equal(decode(fromBits('00011111')).toString(), 'a', 'three bits of padding')
  t.throws(
    () => decode(fromBits('00011110')),
    { code: 'PROTOCOL', message: /padding/ },
    'a zero in the padding',
  )
  t.throws(() => decode(fromBits('00011000')), { code: 'PROTOCOL', message: /padding/ }, 'zeroes as padding')
  t.throws(
    () => decode(fromBits('0001111111111111')),
    { code: 'PROTOCOL', message: /padding/ },
    'eleven bits',
  )
  t.throws(() => decode(fromBits('11111111')), { code: 'PROTOCOL', message: /padding/ }, 'eight bits')
  t.equal(decode(Buffer.alloc(0)).toString(), '', 'an empty string has none')
  t.equal(
    decode(fromBits(`${WORDS[59]}1111111${WORDS[59]}`.slice(0, 8))).toString(),
    ';',
    'an eight-bit word',
  )
})

await t.test('the end-of-string symbol inside a string is an error', async t => {
  for (const before of ['', '00011', '0001100011', WORDS[38]!])
    t.throws(() => decode(fromBits(`${before}${WORDS[256]}`.padEnd(48, '1'))), {
      code: 'PROTOCOL',
      message: /end-of-string/,
    })
})

await t.test('any bytes are either characters that encode to them again, or a PROTOCOL error', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
      let text: Buffer
      try {
        text = decode(bytes)
      } catch (err) {
        return (err as { code?: string }).code === 'PROTOCOL'
      }
      return text.length <= huffmanRoom(bytes.length) && Buffer.compare(encode(text), bytes) === 0
    }),
  )
})
