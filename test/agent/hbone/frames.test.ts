import { PassThrough } from 'node:stream'
import * as fc from 'fast-check'
import t from 'tap'
import { FrameReader, type FrameSink } from '../../../agent/hbone/frame-reader.ts'
import { FrameWriter } from '../../../agent/hbone/frame-writer.ts'
import { StreamTransport } from '../../../agent/hbone/transport.ts'
import { CODE, FLAG, FRAME, SessionError } from '../../../agent/hbone/protocol.ts'

type Seen = readonly unknown[]

/** Writes down what a reader reports; the pieces of a DATA frame are joined. */
class Recorder implements FrameSink {
  readonly seen: Seen[] = []
  #data: Buffer[] = []
  #length = 0
  dataBegin(_streamId: number, length: number): void {
    this.#data = []
    this.#length = length
  }
  data(_streamId: number, piece: Buffer): void {
    this.#data.push(piece)
  }
  dataEnd(streamId: number, endStream: boolean, padding: number): void {
    this.seen.push([
      'data',
      streamId,
      Buffer.concat(this.#data).toString('hex'),
      endStream,
      this.#length - padding,
    ])
  }
  headers(streamId: number, block: Buffer, endStream: boolean): void {
    this.seen.push(['headers', streamId, block.toString('hex'), endStream])
  }
  rstStream(streamId: number, code: number): void {
    this.seen.push(['rst', streamId, code])
  }
  settings(isAck: boolean, payload: Buffer): void {
    this.seen.push(['settings', isAck, payload.toString('hex')])
  }
  pingFrame(isAck: boolean, payload: Buffer): void {
    this.seen.push(['ping', isAck, payload.toString('hex')])
  }
  goawayFrame(lastStreamId: number, code: number, debug: Buffer): void {
    this.seen.push(['goaway', lastStreamId, code, debug.toString()])
  }
  windowUpdate(streamId: number, increment: number): void {
    this.seen.push(['window', streamId, increment])
  }
  ignored(type: number): void {
    this.seen.push(['ignored', type])
  }
}

const streamId = fc.integer({ min: 1, max: 0x7fff_ffff })
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map(array => Buffer.from(array))
type Write = { write: (writer: FrameWriter) => void; seen: Seen }

const frame: fc.Arbitrary<Write> = fc.oneof(
  fc.tuple(streamId, bytes(9000), fc.boolean()).map(([id, payload, end]) => ({
    write: (writer: FrameWriter) => writer.data(id, payload, end),
    seen: ['data', id, payload.toString('hex'), end, payload.length],
  })),
  fc
    .tuple(streamId, bytes(3000), fc.boolean(), fc.integer({ min: 200, max: 16_384 }))
    .map(([id, block, end, max]) => ({
      write: (writer: FrameWriter) => writer.headers(id, block, end, max),
      seen: ['headers', id, block.toString('hex'), end],
    })),
  fc.tuple(streamId, fc.integer({ min: 0, max: 0xffff_ffff })).map(([id, code]) => ({
    write: (writer: FrameWriter) => writer.rstStream(id, code),
    seen: ['rst', id, code],
  })),
  fc.tuple(streamId, fc.integer({ min: 0, max: 0x7fff_ffff })).map(([id, increment]) => ({
    write: (writer: FrameWriter) => writer.windowUpdate(id, increment),
    seen: ['window', id, increment],
  })),
  fc.tuple(fc.boolean(), fc.uint8Array({ minLength: 8, maxLength: 8 })).map(([ack, payload]) => ({
    write: (writer: FrameWriter) => writer.ping(payload, ack),
    seen: ['ping', ack, Buffer.from(payload).toString('hex')],
  })),
  fc.tuple(fc.integer({ min: 0, max: 0x7fff_ffff }), fc.integer({ min: 0, max: 13 })).map(([last, code]) => ({
    write: (writer: FrameWriter) => writer.goaway(last, code, 'why'),
    seen: ['goaway', last, code, 'why'],
  })),
)

await t.test('what the writer writes the reader reads, however the bytes are cut', async t => {
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 60 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 5000 })),
      (frames, cuts) => {
        const wire = new PassThrough({ highWaterMark: 1 << 24 })
        const writer = new FrameWriter(new StreamTransport(wire))
        for (const { write } of frames) write(writer)
        writer.flush()
        const all = (wire.read() as Buffer | null) ?? Buffer.alloc(0)
        const recorder = new Recorder()
        const reader = new FrameReader(recorder, 1 << 20)
        for (let at = 0; at < all.length;) {
          const size = cuts.next().value!
          reader.push(all.subarray(at, at + size))
          at += size
        }
        t.strictSame(
          recorder.seen,
          frames.map(({ seen }) => seen),
        )
      },
    ),
    { numRuns: 150 },
  )
})

await t.test('random bytes end in a session error or in nothing, never in another exception', async t => {
  const random = () =>
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 }), chunks => {
        const reader = new FrameReader(new Recorder(), 16_384)
        try {
          for (const chunk of chunks) reader.push(Buffer.from(chunk))
        } catch (err) {
          if (!(err instanceof SessionError)) throw err
        }
      }),
      { numRuns: 2000 },
    )
  t.doesNotThrow(random)
})

await t.test('a frame that looks right but is not is refused with the code that RFC 9113 names', async t => {
  const cases: [name: string, bytes: Buffer, code: number][] = [
    ['longer than allowed', header(16_385, FRAME.data, 0, 1), CODE.frameSizeError],
    ['DATA on stream 0', header(1, FRAME.data, 0, 0), CODE.protocolError],
    ['DATA with more padding than payload', whole(FRAME.data, FLAG.padded, 1, [2, 0]), CODE.protocolError],
    ['padded DATA of no bytes', header(0, FRAME.data, FLAG.padded, 1), CODE.frameSizeError],
    ['HEADERS on stream 0', whole(FRAME.headers, FLAG.endHeaders, 0, []), CODE.protocolError],
    [
      'HEADERS padding longer than the frame',
      whole(FRAME.headers, FLAG.endHeaders | FLAG.padded, 1, [9, 0]),
      CODE.protocolError,
    ],
    ['CONTINUATION out of nowhere', whole(FRAME.continuation, 0, 1, []), CODE.protocolError],
    [
      'PING inside a header block',
      Buffer.concat([whole(FRAME.headers, 0, 1, []), header(8, FRAME.ping, 0, 0)]),
      CODE.protocolError,
    ],
    [
      'CONTINUATION of another stream',
      Buffer.concat([whole(FRAME.headers, 0, 1, []), header(0, FRAME.continuation, 0, 3)]),
      CODE.protocolError,
    ],
    ['RST_STREAM of 3 bytes', whole(FRAME.rstStream, 0, 1, [0, 0, 0]), CODE.frameSizeError],
    ['RST_STREAM on stream 0', whole(FRAME.rstStream, 0, 0, [0, 0, 0, 0]), CODE.protocolError],
    ['SETTINGS on a stream', whole(FRAME.settings, 0, 1, []), CODE.protocolError],
    ['SETTINGS of 5 bytes', whole(FRAME.settings, 0, 0, [0, 0, 0, 0, 0]), CODE.frameSizeError],
    [
      'SETTINGS acknowledgement with a payload',
      whole(FRAME.settings, FLAG.ack, 0, [0, 1, 0, 0, 0, 0]),
      CODE.frameSizeError,
    ],
    ['PING of 7 bytes', whole(FRAME.ping, 0, 0, [0, 0, 0, 0, 0, 0, 0]), CODE.frameSizeError],
    ['PING on a stream', whole(FRAME.ping, 0, 1, [0, 0, 0, 0, 0, 0, 0, 0]), CODE.protocolError],
    ['GOAWAY of 7 bytes', whole(FRAME.goaway, 0, 0, [0, 0, 0, 0, 0, 0, 0]), CODE.frameSizeError],
    ['WINDOW_UPDATE of 3 bytes', whole(FRAME.windowUpdate, 0, 0, [0, 0, 0]), CODE.frameSizeError],
    ['PUSH_PROMISE', whole(FRAME.pushPromise, 0, 1, [0, 0, 0, 2]), CODE.protocolError],
  ]
  for (const [name, wire, code] of cases) {
    const reader = new FrameReader(new Recorder(), 16_384)
    try {
      reader.push(wire)
      t.fail(`${name} was taken`)
    } catch (err) {
      t.match(err, { name: 'SessionError', h2Code: code }, name)
    }
  }
})

await t.test('an endless header block is cut off, whether it is long or in many pieces', async t => {
  const many = new FrameReader(new Recorder(), 16_384)
  many.push(whole(FRAME.headers, 0, 1, []))
  t.throws(
    () => {
      for (let piece = 0; piece < 100; piece++) many.push(whole(FRAME.continuation, 0, 1, []))
    },
    { h2Code: CODE.enhanceYourCalm } as never,
  )
  const long = new FrameReader(new Recorder(), 16_384)
  long.push(whole(FRAME.headers, 0, 1, []))
  t.throws(
    () => {
      for (let piece = 0; piece < 20; piece++)
        long.push(whole(FRAME.continuation, 0, 1, new Uint8Array(16_384)))
    },
    { h2Code: CODE.enhanceYourCalm } as never,
  )
})

await t.test('frames of unknown type and PRIORITY are passed over', async t => {
  const recorder = new Recorder()
  const reader = new FrameReader(recorder, 16_384)
  reader.push(whole(0xbb, 0xff, 7, [1, 2, 3]))
  reader.push(whole(FRAME.priority, 0, 3, [0, 0, 0, 0, 1]))
  reader.push(whole(FRAME.ping, 0, 0, [1, 2, 3, 4, 5, 6, 7, 8]))
  t.strictSame(recorder.seen, [
    ['ignored', 0xbb],
    ['ignored', FRAME.priority],
    ['ping', false, '0102030405060708'],
  ])
})

function header(length: number, type: number, flags: number, id: number): Buffer {
  const out = Buffer.alloc(9)
  out.writeUIntBE(length, 0, 3)
  out[3] = type
  out[4] = flags
  out.writeUInt32BE(id, 5)
  return out
}

function whole(type: number, flags: number, id: number, payload: ArrayLike<number>): Buffer {
  return Buffer.concat([header(payload.length, type, flags, id), Buffer.from(Uint8Array.from(payload))])
}
