/** Damage that knows what frames are: it gets further into a session than noise does. */
import { CODE, FLAG, FRAME, SETTING } from '../../agent/hbone/protocol.ts'
import { headerBlock } from './bend-headers.ts'
import type { Random } from './random.ts'
import type { Wire, WireFrame } from './wire.ts'

/** What a damage may draw on. */
export interface Material {
  readonly random: Random
  /** Another capture of the same side. */
  readonly other: Wire
  /** Authorities that are carried. */
  readonly authorities: readonly string[]
  /** The bytes are a server's. */
  readonly isServer: boolean
}

type Bend = (frames: WireFrame[], material: Material) => void

const MAX_FRAMES = 3000
const TYPES = [...Object.values(FRAME), 0x0a, 0x10, 0xbb, 0xff]
const FLAGS = [0, FLAG.endStream, FLAG.endHeaders, FLAG.padded, FLAG.priority, 0xff]
const WORDS = [
  0, 1, 2, 1000, 16_383, 16_384, 65_535, 65_536, 0xff_ffff, 0x100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
]

function word(random: Random): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(random.once(4) ? random.uint32() : random.pick(WORDS))
  return bytes
}

function streamId(random: Random, frames: readonly WireFrame[]): number {
  return random.weighted([
    [6, frames.length > 0 ? random.pick(frames).streamId : 1],
    [2, random.pick([0, 1, 2, 3, 5, 101])],
    [1, random.pick([0x7fff_ffff, 0x8000_0001, 0xffff_ffff, 0x7fff_fffd])],
    [1, random.uint32()],
  ])
}

function settingsPayload(random: Random): Buffer {
  const pairs = Array.from({ length: random.int(8) }, () => {
    const id = Buffer.alloc(2)
    id.writeUInt16BE(random.once(5) ? random.int(65_536) : random.pick(Object.values(SETTING)))
    return Buffer.concat([id, word(random)])
  })
  return Buffer.concat(pairs)
}

/** A frame out of the blue, of the right shape more often than not. */
function newFrame(frames: readonly WireFrame[], material: Material): WireFrame {
  const { random } = material
  const type = random.pick(TYPES)
  const shape: Partial<Record<number, () => Buffer>> = {
    [FRAME.data]: () => random.bytes(random.size(20_000)),
    [FRAME.headers]: () => headerBlock(random, material.authorities, material.isServer),
    [FRAME.continuation]: () => headerBlock(random, material.authorities, material.isServer),
    [FRAME.priority]: () => random.bytes(5),
    [FRAME.rstStream]: () => word(random),
    [FRAME.settings]: () => settingsPayload(random),
    [FRAME.ping]: () => random.bytes(8),
    [FRAME.goaway]: () => Buffer.concat([word(random), word(random), random.bytes(random.size(20_000))]),
    [FRAME.windowUpdate]: () => word(random),
  }
  const payload = (random.once(6) ? undefined : shape[type]?.()) ?? random.bytes(random.size(500))
  const isOfConnection = type === FRAME.settings || type === FRAME.ping || type === FRAME.goaway
  const flags = type === FRAME.headers && !random.once(4) ? FLAG.endHeaders : random.pick(FLAGS)
  return { type, flags, streamId: isOfConnection && !random.once(8) ? 0 : streamId(random, frames), payload }
}

const change =
  (how: (frame: WireFrame, frames: readonly WireFrame[], material: Material) => WireFrame): Bend =>
  (frames, material) => {
    if (frames.length === 0) return
    const at = material.random.int(frames.length)
    frames[at] = how(frames[at]!, frames, material)
  }

const sayAgain: Bend = (frames, { random }) => {
  if (frames.length === 0) return
  const frame = random.pick(frames)
  const times = random.once(6) ? random.between(10, 1000) : random.between(1, 3)
  frames.splice(random.int(frames.length + 1), 0, ...Array.from({ length: times }, () => frame))
}

const leaveOut: Bend = (frames, { random }) =>
  void frames.splice(random.int(frames.length), random.between(1, 3))

const reorder: Bend = (frames, { random }) => {
  if (frames.length === 0) return
  const [frame] = frames.splice(random.int(frames.length), 1)
  frames.splice(random.int(frames.length + 1), 0, frame!)
}

const addNew: Bend = (frames, material) => {
  const { random } = material
  const frame = newFrame(frames, material)
  const times = random.once(12) ? random.between(10, 500) : 1
  frames.splice(random.int(frames.length + 1), 0, ...Array.from({ length: times }, () => frame))
}

const addForeign: Bend = (frames, { random, other }) => {
  if (other.frames.length === 0) return
  const from = random.int(other.frames.length)
  frames.splice(random.int(frames.length + 1), 0, ...other.frames.slice(from, from + random.between(1, 10)))
}

/** Legal: a block in many frames. */
const cutBlock: Bend = (frames, { random }) => {
  const at = frames.findIndex(({ type, payload }) => type === FRAME.headers && payload.length > 1)
  if (at < 0) return
  const { payload, streamId, flags } = frames[at]!
  const pieces: WireFrame[] = []
  const most = Math.max(1, Math.ceil(payload.length / random.between(1, 40)))
  for (let from = 0; from < payload.length; from += most)
    pieces.push({
      type: from === 0 ? FRAME.headers : FRAME.continuation,
      flags:
        (from === 0 ? flags & ~FLAG.endHeaders : 0) | (from + most >= payload.length ? FLAG.endHeaders : 0),
      streamId,
      payload: payload.subarray(from, from + most),
    })
  frames.splice(at, 1, ...pieces)
}

const BENDS: readonly (readonly [number, Bend])[] = [
  [4, addNew],
  [3, sayAgain],
  [2, leaveOut],
  [3, reorder],
  [2, addForeign],
  [2, cutBlock],
  [3, change((frame, frames, { random }) => ({ ...frame, streamId: streamId(random, frames) }))],
  [3, change((frame, _, { random }) => ({ ...frame, flags: frame.flags ^ random.pick(FLAGS.slice(1)) }))],
  [1, change((frame, _, { random }) => ({ ...frame, flags: random.int(256) }))],
  [1, change((frame, _, { random }) => ({ ...frame, type: random.pick(TYPES) }))],
  [2, change((frame, _, { random }) => ({ ...frame, lie: lengthLie(frame.payload.length, random) }))],
  [2, change((frame, _, { random }) => ({ ...frame, payload: resized(frame.payload, random) }))],
  [2, change((frame, _, { random }) => padded(frame, random))],
  [3, change((frame, _, material) => withBlock(frame, material))],
  [2, change((frame, _, { random }) => withWord(frame, random))],
  [2, change((frame, _, { random }) => withCode(frame, random))],
]

function lengthLie(length: number, random: Random): number {
  return Math.max(
    0,
    random.pick([length - 1, length + 1, 0, 1, 0xff_ffff, 16_385, 1024 * 1024 + 1, random.int(100_000)]),
  )
}

function resized(payload: Buffer, random: Random): Buffer {
  return random.once(2)
    ? payload.subarray(0, random.int(payload.length + 1))
    : Buffer.concat([payload, random.bytes(random.size(20_000))])
}

/** Legal padding, or a pad length that is not. */
function padded(frame: WireFrame, random: Random): WireFrame {
  const pad = random.int(256)
  const said = random.once(3) ? random.int(256) : pad
  return {
    ...frame,
    flags: frame.flags | FLAG.padded,
    payload: Buffer.concat([Buffer.of(said), frame.payload, Buffer.alloc(pad)]),
  }
}

function withBlock(frame: WireFrame, { random, authorities, isServer }: Material): WireFrame {
  return {
    ...frame,
    type: FRAME.headers,
    flags: FLAG.endHeaders | (random.once(4) ? FLAG.endStream : 0),
    payload: headerBlock(random, authorities, isServer),
  }
}

function withWord(frame: WireFrame, random: Random): WireFrame {
  if (frame.payload.length < 4) return frame
  const payload = Buffer.from(frame.payload)
  word(random).copy(payload, random.int(payload.length - 3))
  return { ...frame, payload }
}

function withCode(frame: WireFrame, random: Random): WireFrame {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(random.once(4) ? random.uint32() : random.pick(Object.values(CODE)))
  return { ...frame, type: FRAME.rstStream, flags: 0, payload }
}

/** A few damages to a connection's frames, one after the other. What is given stays as it is. */
export function bendFrames(wire: Wire, material: Material): Wire {
  const { random } = material
  let frames = [...wire.frames]
  for (let left = random.between(1, random.once(3) ? 12 : 3); left > 0; left--) {
    random.weighted(BENDS)(frames, material)
    frames = frames.slice(0, MAX_FRAMES)
  }
  return { ...wire, frames }
}
