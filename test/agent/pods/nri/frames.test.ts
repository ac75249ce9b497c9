import * as fc from 'fast-check'
import t from 'tap'
import {
  messageBytes,
  MessageReader,
  REQUEST,
  RESPONSE,
  type Message,
} from '../../../../agent/pods/nri/message.ts'
import { Demultiplexer, framesOf } from '../../../../agent/pods/nri/multiplex.ts'

const MAX = 4 * 1024 * 1024

const messages = fc.array(
  fc.record({
    stream: fc.integer({ min: 0, max: 0xffff_ffff }),
    type: fc.constantFrom(REQUEST, RESPONSE, 3, 255),
    body: fc.uint8Array({ maxLength: 40_000 }),
  }),
  { maxLength: 6 },
)
/** Where a text is cut into what the kernel gives at a time. */
const cuts = fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 20 })

function inPieces(bytes: Buffer, sizes: readonly number[], take: (piece: Buffer) => void): void {
  for (let at = 0, piece = 0; at < bytes.length; piece++) {
    const size = sizes[piece % sizes.length]!
    take(bytes.subarray(at, at + size))
    at += size
  }
}

const plain = ({ stream, type, body }: Message) => ({ stream, type, body: Buffer.from(body).toString('hex') })

await t.test('messages come out as they went in, however they were cut', async t => {
  fc.assert(
    fc.property(messages, cuts, (sent, sizes) => {
      const got: ReturnType<typeof plain>[] = []
      const reader = new MessageReader(message => got.push(plain(message)))
      inPieces(Buffer.concat(sent.map(messageBytes)), sizes, piece => reader.push(piece))
      t.strictSame(got, sent.map(plain))
    }),
    { numRuns: 100 },
  )
})

await t.test('connections are told apart, however their frames were cut', async t => {
  const sent = fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.uint8Array({ maxLength: 10_000 })), {
    maxLength: 8,
  })
  fc.assert(
    fc.property(sent, cuts, (parts, sizes) => {
      const got = new Map<number, Buffer[]>()
      const demultiplexer = new Demultiplexer((connection, bytes) => {
        got.set(connection, [...(got.get(connection) ?? []), Buffer.from(bytes)])
      })
      const bytes = Buffer.concat(parts.flatMap(([connection, part]) => framesOf(connection, part)))
      inPieces(bytes, sizes, piece => demultiplexer.push(piece))
      for (const connection of [0, 1, 2, 3]) {
        const wanted = parts.filter(([to]) => to === connection).map(([, part]) => part)
        t.same(Buffer.concat(got.get(connection) ?? []), Buffer.concat(wanted))
      }
    }),
    { numRuns: 100 },
  )
})

await t.test('any bytes are read, or refused under a name', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), cuts, (bytes, sizes) => {
      const reader = new MessageReader(() => undefined)
      const demultiplexer = new Demultiplexer((_, piece) => reader.push(piece))
      try {
        inPieces(Buffer.from(bytes), sizes, piece => demultiplexer.push(piece))
      } catch (err) {
        t.match(err, { code: 'PROTOCOL' })
      }
    }),
  )
})

await t.test('what is too long is refused before it is there', async t => {
  const header = (length: number) => {
    const bytes = Buffer.alloc(10)
    bytes.writeUInt32BE(length, 0)
    return bytes
  }
  t.throws(() => new MessageReader(() => undefined).push(header(MAX + 1)), { code: 'PROTOCOL' })
  t.doesNotThrow(() => new MessageReader(() => undefined).push(header(MAX)))
  t.throws(() => messageBytes({ stream: 1, type: REQUEST, body: new Uint8Array(MAX + 1) }), { code: 'INPUT' })
  const frame = Buffer.alloc(8)
  frame.writeUInt32BE(MAX + 11, 4)
  t.throws(() => new Demultiplexer(() => undefined).push(frame), { code: 'PROTOCOL' })
  t.equal(
    framesOf(1, new Uint8Array(MAX + 11)).length,
    2,
    'what goes out is cut to what the other side takes',
  )
})

await t.test('a message costs memory only for what has come of it', async t => {
  const header = Buffer.alloc(10)
  header.writeUInt32BE(MAX, 0)
  const before = process.memoryUsage().arrayBuffers
  const readers = Array.from({ length: 100 }, () => {
    const reader = new MessageReader(() => undefined)
    reader.push(header)
    reader.push(Buffer.alloc(1000))
    return reader
  })
  const grown = process.memoryUsage().arrayBuffers - before
  t.ok(grown < 10 * MAX, `${grown} bytes for ${readers.length} messages`)
})
