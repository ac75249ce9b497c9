/** Header blocks, as a tunnel's request and its answers have them, on a connection that has seen some before. */
import { HpackDecoder } from '../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import { formatForwarded } from '../../agent/proxy/forwarded.ts'
import { newTraceparent } from '../../agent/proxy/traceparent.ts'
import type { Part } from './part.ts'

type HeaderList = readonly (readonly [name: string, value: string])[]

/** Different ones in turn, as traces are. */
const VARIANTS = 256

const REQUESTS: readonly HeaderList[] = Array.from({ length: VARIANTS }, (_, at) => [
  [':method', 'CONNECT'],
  [':authority', '10.98.2.2:8080'],
  [
    'forwarded',
    formatForwarded({ for: { ip: '10.98.1.2', port: 32_768 + at }, host: 'echo.shop.svc.cluster.local' }),
  ],
  ['traceparent', newTraceparent()],
])

const ANSWERS: readonly HeaderList[] = Array.from({ length: VARIANTS }, (_, at) =>
  at % 16 === 15
    ? [
        [':status', '503'],
        ['culvert-error', 'ECONNREFUSED'],
      ]
    : [[':status', '200']],
)

export const hpackParts: readonly Part[] = [
  encode('request', REQUESTS, 'CONNECT with :authority, forwarded and traceparent'),
  decode('request', REQUESTS, 'CONNECT with :authority, forwarded and traceparent'),
  encode('answer', ANSWERS, 'The status, and one time in sixteen a refusal with its cause'),
  decode('answer', ANSWERS, 'The status, and one time in sixteen a refusal with its cause'),
]

function encode(what: string, lists: readonly HeaderList[], about: string): Part {
  return {
    id: `hpack-encode-${what}`,
    title: `HPACK encode, ${what}`,
    about: `${about}; each one after many on the same connection.`,
    start: () => {
      const encoder = new HpackEncoder()
      return {
        work: times => {
          for (let at = 0; at < times; at++) encoder.encode(lists[at % VARIANTS]!)
        },
      }
    },
  }
}

function decode(what: string, lists: readonly HeaderList[], about: string): Part {
  return {
    id: `hpack-decode-${what}`,
    title: `HPACK decode, ${what}`,
    about: `${about}; each one after many on the same connection.`,
    start: () => {
      const encoder = new HpackEncoder()
      const decoder = new HpackDecoder()
      let characters = 0
      const emit = (name: string, value: string) => {
        characters += name.length + value.length
      }
      // The second time around everything worth a place in the table has one: these blocks can be read for ever.
      for (const list of lists) decoder.decode(encoder.encode(list), emit)
      const blocks = lists.map(list => encoder.encode(list))
      return {
        work: times => {
          for (let at = 0; at < times; at++) decoder.decode(blocks[at % VARIANTS]!, emit)
        },
        stop: () => {
          if (characters === 0) throw new Error('nothing was decoded')
        },
      }
    },
  }
}
