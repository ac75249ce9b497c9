/** Frames: what the data path does to every byte, without the bytes' way through TLS and kernel. */
import { FrameReader, type FrameSink } from '../../agent/hbone/frame-reader.ts'
import { FrameWriter } from '../../agent/hbone/frame-writer.ts'
import { FRAME, FRAME_HEADER_BYTES } from '../../agent/hbone/protocol.ts'
import type { Transport } from '../../agent/hbone/transport.ts'
import type { Part } from './part.ts'

const SIZES = [
  [64, '64 B'],
  [16 * 1024, '16 KiB'],
  [256 * 1024, '256 KiB'],
] as const

/** What TLS hands on at a time: one record (RFC 8446 §5.1). */
const RECORD_BYTES = 16 * 1024
const MAX_FRAME = 1024 * 1024

export const frameParts: readonly Part[] = SIZES.flatMap(([size, name]) => [
  encode(size, name),
  decode(size, name),
])

function encode(size: number, name: string): Part {
  return {
    id: `frame-encode-${size}`,
    title: `frame encode, ${name}`,
    about:
      'A DATA frame is made around a payload that has room for the header, and handed to a transport that takes it.',
    start: () => {
      const writer = new FrameWriter(new TakesAll())
      const buffer = Buffer.alloc(FRAME_HEADER_BYTES + size, 7)
      return {
        work: times => {
          for (let at = 0; at < times; at++) {
            writer.dataInPlace(1, buffer, size)
            writer.flush()
          }
        },
      }
    },
  }
}

function decode(size: number, name: string): Part {
  return {
    id: `frame-decode-${size}`,
    title: `frame decode, ${name}`,
    about: 'A DATA frame is read from the pieces that TLS hands on, 16 KiB each at most.',
    start: () => {
      const sink = new Counts()
      const reader = new FrameReader(sink, MAX_FRAME)
      const frame = Buffer.alloc(FRAME_HEADER_BYTES + size, 7)
      frame.writeUIntBE(size, 0, 3)
      frame.writeUInt8(FRAME.data, 3)
      frame.writeUInt8(0, 4)
      frame.writeUInt32BE(1, 5)
      const pieces = Array.from({ length: Math.ceil(frame.length / RECORD_BYTES) }, (_, at) =>
        frame.subarray(at * RECORD_BYTES, (at + 1) * RECORD_BYTES),
      )
      return {
        work: times => {
          for (let at = 0; at < times; at++) for (const piece of pieces) reader.push(piece)
        },
      }
    },
  }
}

class TakesAll implements Transport {
  readonly backlog = 0
  readonly isClosed = false
  bytes = 0

  start(): void {}

  write(_bytes: Buffer, length: number): void {
    this.bytes += length
  }

  soon(): void {}

  end(): void {}

  destroy(): void {}
}

class Counts implements FrameSink {
  bytes = 0
  frames = 0

  dataBegin(): void {}

  data(_streamId: number, piece: Buffer): void {
    this.bytes += piece.length
  }

  dataEnd(): void {
    this.frames++
  }

  headers(): void {}

  rstStream(): void {}

  settings(): void {}

  pingFrame(): void {}

  goawayFrame(): void {}

  windowUpdate(): void {}

  ignored(): void {}
}
