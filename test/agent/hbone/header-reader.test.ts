import * as fc from 'fast-check'
import t from 'tap'
import { HeaderReader, type MessageKind } from '../../../agent/hbone/header-reader.ts'
import { HpackEncoder } from '../../../agent/hbone/hpack/encoder.ts'
import { CODE, SessionError } from '../../../agent/hbone/protocol.ts'
import { headerLists, type HeaderList } from '../../helpers/hpack.ts'

const LIMIT = 64 * 1024
const PSEUDO = { request: [':method', ':authority', ':scheme', ':path'], response: [':status'] }

function read(list: HeaderList, kind: MessageKind = 'request'): ReturnType<HeaderReader['read']> {
  return new HeaderReader(LIMIT, kind).read(Buffer.from(new HpackEncoder().encode(list)))
}

await t.test('fields are read by name, regular ones that repeat are joined', async t => {
  const { fields, isMalformed, isTooLarge } = read([
    [':method', 'CONNECT'],
    [':authority', '10.0.0.1:80'],
    ['baggage', 'a=1'],
    ['baggage', 'b=2'],
  ])
  t.strictSame([isMalformed, isTooLarge], [false, false])
  t.strictSame(Object.fromEntries(fields), {
    ':method': 'CONNECT',
    ':authority': '10.0.0.1:80',
    baggage: 'a=1, b=2',
  })
})

await t.test('what RFC 9113 §8.2 and §8.3 forbid is malformed', async t => {
  const good = [':method', 'CONNECT'] as const
  const cases: [what: string, list: HeaderList][] = [
    ['an upper-case name', [good, ['Baggage', 'a']]],
    ['an empty name', [good, ['', 'a']]],
    ['a space in a name', [good, ['a b', 'a']]],
    ['a colon inside a name', [good, ['a:b', 'a']]],
    ['a name beyond ASCII', [good, ['caf\u00e9', 'a']]],
    ['a line break in a value', [good, ['a', 'b\r\nc: d']]],
    ['a NUL in a value', [good, ['a', 'b\0']]],
    ['a value that begins with a space', [good, ['a', ' b']]],
    ['a value that ends with a tab', [good, ['a', 'b\t']]],
    ['a pseudo-header twice', [good, good]],
    ['a pseudo-header after a regular one', [['a', 'b'], good]],
    ['a pseudo-header of answers', [good, [':status', '200']]],
    ['a pseudo-header that nobody defined', [good, [':', 'a']]],
    ['a field of the connection', [good, ['connection', 'close']]],
    ['an encoding other than trailers', [good, ['te', 'trailers, gzip']]],
  ]
  for (const [what, list] of cases) t.ok(read(list).isMalformed, what)
  t.notOk(read([good, ['te', 'Trailers']]).isMalformed)
  t.notOk(read([[':status', '200']], 'response').isMalformed)
  t.ok(read([good], 'response').isMalformed, 'a pseudo-header of requests')
})

await t.test('a list over the limit is said to be, and its table is kept in step', async t => {
  const encoder = new HpackEncoder()
  const reader = new HeaderReader(1000, 'request')
  const block = (list: HeaderList) => reader.read(Buffer.from(encoder.encode(list)))
  t.ok(
    block([
      ['x-large', 'y'.repeat(2000)],
      ['x-next', 'remembered'],
    ]).isTooLarge,
  )
  const { fields, isTooLarge } = block([['x-next', 'remembered']])
  t.equal(isTooLarge, false)
  t.equal(fields.get('x-next'), 'remembered')
})

await t.test('whatever the list, it is malformed as a naive reading of the rules says', async () => {
  fc.assert(
    fc.property(headerLists(), fc.constantFrom<MessageKind[]>('request', 'response'), (list, kind) => {
      let sawRegular = false
      const seen = new Set<string>()
      let isMalformed = false
      for (const [name, value] of list) {
        const isPseudo = name.startsWith(':')
        if (name === '' || name.slice(1).includes(':')) isMalformed = true
        for (const character of name)
          if (character <= ' ' || character >= '\x7f' || character !== character.toLowerCase())
            isMalformed = true
        if (/[\0\r\n]/.test(value) || /^[ \t]|[ \t]$/.test(value)) isMalformed = true
        if (isPseudo && (sawRegular || seen.has(name) || !PSEUDO[kind].includes(name))) isMalformed = true
        if (/^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade)$/.test(name))
          isMalformed = true
        if (name === 'te' && !/^trailers$/i.test(value)) isMalformed = true
        if (!isPseudo) sawRegular = true
        seen.add(name)
      }
      return read(list, kind).isMalformed === isMalformed
    }),
    { numRuns: 1000 },
  )
})

await t.test('any bytes give fields or a COMPRESSION_ERROR of our own words, within bounds', async t => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 5 }), blocks => {
      const reader = new HeaderReader(LIMIT, 'request')
      try {
        for (const block of blocks) {
          let bytes = 0
          for (const [name, value] of reader.read(Buffer.from(block)).fields)
            bytes += name.length + value.length
          if (bytes > LIMIT) return false
        }
        return true
      } catch (err) {
        if (!(err instanceof SessionError) || err.h2Code !== CODE.compressionError) throw err
        return err.message.startsWith('malformed header block: ')
      }
    }),
    { numRuns: 3000 },
  )
  t.pass('no other exception')
})
