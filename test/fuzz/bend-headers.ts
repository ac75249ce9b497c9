/** Header blocks: honest lists bent and encoded anew, and encodings that no honest encoder makes. */
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import type { Random } from './random.ts'

type Field = [name: string, value: string]

/** Where a peer may want to be carried: places it may reach, places it may not, and what is no place at all. */
function authority(random: Random, good: readonly string[]): string {
  const host = random.pick(good).replace(/:\d+$/, '')
  return random.weighted([
    [4, random.pick(good)],
    [1, `${host}:${random.pick([0, 1, 80, 15001, 15006, 15008, 15020, 65_535, 65_536, 99_999])}`],
    [
      1,
      `${random.pick(['127.0.0.1', '0.0.0.0', '[::1]', '169.254.169.254', '255.255.255.255', '[::ffff:10.77.0.2]'])}:7000`,
    ],
    [
      1,
      random.pick([
        '',
        ':',
        ':80',
        'x',
        '[',
        '[]:1',
        'localhost:80',
        '10.77.0.2',
        '10.77.0.2:',
        '010.77.0.2:7000',
        `${'1'.repeat(5000)}:1`,
      ]),
    ],
    [1, random.bytes(random.size(60)).toString('latin1')],
  ])
}

function text(random: Random): string {
  return random.weighted([
    [3, random.bytes(random.size(200)).toString('latin1')],
    [2, random.pick(['', ' ', '\r\n', '\0', '"', '%', ',', ';', '=', '\x1b[31m', 'a'.repeat(300)])],
    [1, 'k8s.pod.name='.repeat(random.size(400))],
    [1, 'x'.repeat(random.size(70_000))],
  ])
}

function fields(random: Random, good: readonly string[]): Field[] {
  const list: Field[] = [
    [':method', random.once(8) ? random.pick(['GET', 'connect', '', 'CONNECT ', 'OPTIONS']) : 'CONNECT'],
    [':authority', authority(random, good)],
  ]
  if (random.once(6))
    list.push([random.pick([':path', ':scheme', ':protocol', ':status', ':x', '']), text(random)])
  for (let left = random.int(5); left > 0; left--)
    list.push([
      random.weighted([
        [
          3,
          random.pick([
            'baggage',
            'forwarded',
            'traceparent',
            'content-length',
            'te',
            'connection',
            'cookie',
          ]),
        ],
        [1, text(random).slice(0, 2000)],
      ]),
      random.weighted([
        [2, text(random)],
        [
          1,
          random.pick([
            'for="10.77.0.3:1"',
            'for=unknown;host=a',
            'k8s.namespace.name=shop',
            '00-0-0-0',
            'trailers',
          ]),
        ],
      ]),
    ])
  if (random.once(5)) list.reverse()
  if (random.once(5)) list.push(random.pick(list))
  if (random.once(10)) list.splice(random.int(list.length), 1)
  return list
}

/** An answer of a server. */
function answer(random: Random): Field[] {
  const status = random.weighted([
    [4, '200'],
    [2, random.pick(['100', '101', '103', '199', '204', '304', '400', '401', '431', '503', '599'])],
    [1, random.pick(['', '0', '-1', '99', '600', '1e2', ' 200', 'NaN', '2'.repeat(400)])],
  ])
  const list: Field[] = [[':status', status]]
  if (random.once(3)) list.push([random.pick(['culvert-error', 'x', 'X', '']), text(random)])
  if (random.once(8)) list.push([':status', '200'])
  return list
}

/** Blocks that are wrong as HPACK, or dear. */
function hostileBlock(random: Random): Buffer {
  const literal = (name: string, value: string) =>
    Buffer.concat([
      Buffer.of(0x40, name.length),
      Buffer.from(name),
      Buffer.of(value.length),
      Buffer.from(value),
    ])
  return random.weighted([
    [2, () => random.bytes(random.size(2000))],
    [1, () => Buffer.alloc(random.size(2000), 0xff)],
    // An index past the table, of every length that an integer may have and some it may not.
    [
      1,
      () => Buffer.concat([Buffer.of(0xff), Buffer.alloc(random.int(12), 0xff), Buffer.of(random.int(128))]),
    ],
    // Table size updates, too many or too large.
    [
      1,
      () =>
        Buffer.concat(
          Array.from({ length: random.between(1, 50) }, () =>
            random.pick([Buffer.of(0x20), Buffer.of(0x3f, 0xe1, 0x1f), Buffer.of(0x3f, 0xff, 0xff, 0x7f)]),
          ),
        ),
    ],
    // A string longer than the block, plain and Huffman coded.
    [
      1,
      () =>
        Buffer.concat([
          Buffer.of(0x00, random.once(2) ? 0x7f : 0xff, random.int(256)),
          random.bytes(random.size(100)),
        ]),
    ],
    // One large entry, and a thousand references to it.
    [1, () => Buffer.concat([literal('x', 'y'.repeat(120)), Buffer.alloc(random.size(20_000), 0xbe)])],
    // Entries that throw each other out of the table.
    [
      1,
      () =>
        Buffer.concat(
          Array.from({ length: random.between(1, 200) }, (_, at) => literal(`n${at}`, 'v'.repeat(100))),
        ),
    ],
  ])()
}

/** One header block; `good` are authorities that are carried. */
export function headerBlock(random: Random, good: readonly string[], isServer: boolean): Buffer {
  if (random.once(4)) return hostileBlock(random)
  const encoder = new HpackEncoder()
  if (random.once(4)) encoder.setPeerMaxTableSize(random.pick([0, 1, 100, 65_536]))
  return Buffer.from(encoder.encode(isServer ? answer(random) : fields(random, good)))
}
