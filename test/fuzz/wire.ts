/** One side's bytes of an HTTP/2 connection as a list of frames that can be bent, and back to bytes. */
import { FRAME_HEADER_BYTES, PREFACE } from '../../agent/hbone/protocol.ts'

export interface WireFrame {
  readonly type: number
  readonly flags: number
  /** All 32 bits, the reserved one too. */
  readonly streamId: number
  readonly payload: Buffer
  /** What the header says when that is not the payload's length. */
  readonly lie?: number
}

export interface Wire {
  /** What comes before the first frame: a client's preface. */
  readonly preface: Buffer
  readonly frames: readonly WireFrame[]
  /** What is left at the end and is no whole frame. */
  readonly rest: Buffer
}

export function parseWire(bytes: Buffer): Wire {
  const hasPreface = bytes.subarray(0, PREFACE.length).equals(PREFACE)
  let at = hasPreface ? PREFACE.length : 0
  const preface = bytes.subarray(0, at)
  const frames: WireFrame[] = []
  while (at + FRAME_HEADER_BYTES <= bytes.length) {
    const end = at + FRAME_HEADER_BYTES + bytes.readUIntBE(at, 3)
    if (end > bytes.length) break
    frames.push({
      type: bytes[at + 3]!,
      flags: bytes[at + 4]!,
      streamId: bytes.readUInt32BE(at + 5),
      payload: bytes.subarray(at + FRAME_HEADER_BYTES, end),
    })
    at = end
  }
  return { preface, frames, rest: bytes.subarray(at) }
}

export function frameBytes({ type, flags, streamId, payload, lie }: WireFrame): Buffer {
  const head = Buffer.alloc(FRAME_HEADER_BYTES)
  head.writeUIntBE((lie ?? payload.length) & 0xff_ffff, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(streamId >>> 0, 5)
  return Buffer.concat([head, payload])
}

export function wireBytes({ preface, frames, rest }: Wire): Buffer {
  return Buffer.concat([preface, ...frames.map(frameBytes), rest])
}
