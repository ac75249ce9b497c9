// The examples of RFC 7541 Appendix C, by their section numbers.
import t from 'tap'
import { HpackDecoder } from '../../../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../../../agent/hbone/hpack/encoder.ts'
import { readInteger, writeInteger } from '../../../../agent/hbone/hpack/integer.ts'
import { decodeList, fromHex, toHex, type HeaderList } from '../../../helpers/hpack.ts'

interface Example {
  readonly hex: string
  readonly headers: HeaderList
}

await t.test('C.1: integers', async t => {
  for (const [hex, prefixBits, value] of [
    ['0a', 5, 10],
    ['1f9a0a', 5, 1337],
    ['2a', 8, 42],
  ] as const) {
    const cursor = { bytes: fromHex(hex), at: 0 }
    t.equal(readInteger(cursor, prefixBits), value, `${value} is read`)
    t.equal(cursor.at, hex.length / 2, 'to its end')
    const out = new Uint8Array(8)
    t.equal(toHex(out.subarray(0, writeInteger(out, 0, prefixBits, 0, value))), hex, `${value} is written`)
  }
})

await t.test('C.2: header field representations', async t => {
  const decoded = (hex: string) => decodeList(new HpackDecoder(), fromHex(hex))
  t.strictSame(
    decoded('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572'),
    [['custom-key', 'custom-header']],
    'literal with indexing',
  )
  t.strictSame(
    decoded('040c 2f73 616d 706c 652f 7061 7468'),
    [[':path', '/sample/path']],
    'literal without indexing',
  )
  t.strictSame(
    decoded('1008 7061 7373 776f 7264 0673 6563 7265 74'),
    [['password', 'secret']],
    'literal never indexed',
  )
  t.strictSame(decoded('82'), [[':method', 'GET']], 'indexed')
})

const REQUESTS: readonly HeaderList[] = [
  [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ],
  [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
    ['cache-control', 'no-cache'],
  ],
  [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ],
]

const RESPONSES: readonly HeaderList[] = [
  [
    [':status', '302'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '307'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '200'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
    ['location', 'https://www.example.com'],
    ['content-encoding', 'gzip'],
    ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
  ],
]

const PLAIN_REQUESTS = [
  '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
  '8286 84be 5808 6e6f 2d63 6163 6865',
  '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
]

const HUFFMAN_REQUESTS = [
  '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
  '8286 84be 5886 a8eb 1064 9cbf',
  '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
]

const PLAIN_RESPONSES = [
  `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
   3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
  '4803 3330 37c1 c0bf',
  `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
   7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
   6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`,
]

const HUFFMAN_RESPONSES = [
  `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
   1718 63c7 8f0b 97c8 e9ae 82ae 43d3`,
  '4883 640e ffc1 c0bf',
  `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
   e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
]

function examples(blocks: readonly string[], lists: readonly HeaderList[]): Example[] {
  return blocks.map((hex, at) => ({ hex, headers: lists[at]! }))
}

const SEQUENCES = [
  {
    section: 'C.3: requests without Huffman coding',
    of: examples(PLAIN_REQUESTS, REQUESTS),
    tableSize: 4096,
  },
  { section: 'C.4: requests with Huffman coding', of: examples(HUFFMAN_REQUESTS, REQUESTS), tableSize: 4096 },
  {
    section: 'C.5: responses without Huffman coding',
    of: examples(PLAIN_RESPONSES, RESPONSES),
    tableSize: 256,
  },
  {
    section: 'C.6: responses with Huffman coding',
    of: examples(HUFFMAN_RESPONSES, RESPONSES),
    tableSize: 256,
  },
]

for (const { section, of, tableSize } of SEQUENCES) {
  await t.test(`${section} are read`, async t => {
    const decoder = new HpackDecoder({ maxTableSize: tableSize })
    for (const { hex, headers } of of) t.strictSame(decodeList(decoder, fromHex(hex)), headers)
  })
}

await t.test('C.3: requests are written byte for byte', async t => {
  const encoder = new HpackEncoder()
  for (const { hex, headers } of examples(PLAIN_REQUESTS, REQUESTS))
    t.equal(toHex(encoder.encode(headers)), toHex(fromHex(hex)))
})

await t.test(
  'C.5: responses are written byte for byte, after the announcement of the smaller table',
  async t => {
    const encoder = new HpackEncoder({ maxTableSize: 256 })
    let announcement = '3fe101'
    for (const { hex, headers } of examples(PLAIN_RESPONSES, RESPONSES)) {
      t.equal(toHex(encoder.encode(headers)), announcement + toHex(fromHex(hex)))
      announcement = ''
    }
  },
)
