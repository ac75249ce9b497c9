/** One end of an HTTP/2 connection that sends whatever frames a test says, and tells what came back. */
import type { Duplex } from 'node:stream'
import { FLAG, FRAME, FRAME_HEADER_BYTES, PREFACE } from '../../agent/hbone/protocol.ts'
import { HpackDecoder } from '../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../agent/hbone/hpack/encoder.ts'
import type { HeaderList } from './hpack.ts'

export interface RawFrame {
  readonly type: number
  readonly flags: number
  readonly streamId: number
  readonly payload: Buffer
}

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = EMPTY): Buffer {
  const head = Buffer.alloc(FRAME_HEADER_BYTES)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(streamId, 5)
  return Buffer.concat([head, payload])
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const settings = (...pairs: [id: number, value: number][]): Buffer =>
  frame(
    FRAME.settings,
    0,
    0,
    Buffer.concat(
      pairs.map(([id, value]) => {
        const bytes = Buffer.alloc(6)
        bytes.writeUInt16BE(id)
        bytes.writeUInt32BE(value, 2)
        return bytes
      }),
    ),
  )

export const data = (streamId: number, payload: Uint8Array, flags = 0): Buffer =>
  frame(FRAME.data, flags, streamId, payload)

export const rst = (streamId: number, code: number): Buffer =>
  frame(FRAME.rstStream, 0, streamId, uint32(code))

export const ping = (): Buffer => frame(FRAME.ping, 0, 0, Buffer.alloc(8))

export const windowUpdate = (streamId: number, increment: number): Buffer =>
  frame(FRAME.windowUpdate, 0, streamId, uint32(increment))

/** The same frame many times over. */
export function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.alloc(bytes.length * times, bytes)
}

export class RawPeer {
  readonly frames: RawFrame[] = []
  readonly socket: Duplex
  isClosed = false
  readonly #encoder = new HpackEncoder()
  readonly #decoder = new HpackDecoder()
  readonly #watchers = new Set<() => void>()
  #rest: Buffer = EMPTY
  /** A header block as far as it has come. */
  #block: Buffer = EMPTY
  #skip: number

  readonly #acknowledges: boolean

  /**
   * The socket must have a listener for its errors. A server is sent the client's preface first. One that does not
   * acknowledge SETTINGS need not keep to them (RFC 9113 §6.5.3).
   */
  constructor(socket: Duplex, { isServer = false, acknowledges = true } = {}) {
    this.socket = socket
    this.#acknowledges = acknowledges
    this.#skip = isServer ? PREFACE.length : 0
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    const gone = () => {
      this.isClosed = true
      this.#wake()
    }
    socket.on('end', gone)
    socket.on('close', gone)
  }

  /** Preface and SETTINGS of a client, and its acknowledgement of the other side's, which come at once. */
  hello(...pairs: [id: number, value: number][]): this {
    const acknowledgement = this.#acknowledges ? [frame(FRAME.settings, FLAG.ack, 0)] : []
    return this.send(PREFACE, settings(...pairs), ...acknowledgement)
  }

  send(...frames: Uint8Array[]): this {
    for (const bytes of frames) this.socket.write(bytes)
    return this
  }

  /** Resolves once the bytes have left this process, or never will. */
  async flood(bytes: Uint8Array): Promise<void> {
    if (this.isClosed || this.socket.destroyed) return
    await new Promise<void>(resolve => {
      this.#watchers.add(() => this.isClosed && resolve())
      this.socket.write(bytes, () => resolve())
    })
  }

  /** HEADERS, whole, of a stream. */
  headers(streamId: number, fields: HeaderList, flags = 0): this {
    return this.send(frame(FRAME.headers, flags | FLAG.endHeaders, streamId, this.#encoder.encode(fields)))
  }

  connect(streamId: number, authority: string, more: HeaderList = []): this {
    return this.headers(streamId, [[':method', 'CONNECT'], [':authority', authority], ...more])
  }

  /** The first frame that fits, past or future. Rejects when the connection ends before. */
  async frame(fits: (frame: RawFrame) => boolean): Promise<RawFrame> {
    return this.#wait(() => this.frames.find(fits))
  }

  /** The status that answers a stream. */
  async status(streamId: number): Promise<number> {
    return this.#wait(() => this.#statuses.get(streamId))
  }

  /** Sends a PING; resolves once it is acknowledged, and with it everything that was sent before has been read. */
  async pong(): Promise<void> {
    const isPong = ({ type, flags }: RawFrame) => type === FRAME.ping && flags === FLAG.ack
    const before = this.frames.filter(isPong).length
    this.send(ping())
    await this.#wait(() => this.frames.filter(isPong).length > before || undefined)
  }

  /** The code with which the other side reset a stream. */
  async resetCode(streamId: number): Promise<number> {
    const { payload } = await this.frame(each => each.type === FRAME.rstStream && each.streamId === streamId)
    return payload.readUInt32BE()
  }

  /** Code and text of the GOAWAY that ended the connection, once it has ended. */
  async goaway(): Promise<{ code: number; text: string }> {
    const { payload } = await this.frame(each => each.type === FRAME.goaway)
    await this.closed()
    return { code: payload.readUInt32BE(4), text: payload.toString('utf8', 8) }
  }

  async closed(): Promise<void> {
    await this.#wait(() => this.isClosed || undefined)
  }

  readonly #statuses = new Map<number, number>()

  #take(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    if (this.#skip > 0) {
      if (this.#rest.length < this.#skip) return
      this.#rest = this.#rest.subarray(this.#skip)
      this.#skip = 0
    }
    while (this.#rest.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + this.#rest.readUIntBE(0, 3)
      if (this.#rest.length < end) break
      const payload = this.#rest.subarray(FRAME_HEADER_BYTES, end)
      const found = {
        type: this.#rest[3]!,
        flags: this.#rest[4]!,
        streamId: this.#rest.readUInt32BE(5),
        payload,
      }
      this.#rest = this.#rest.subarray(end)
      this.frames.push(found)
      if (found.type === FRAME.headers || found.type === FRAME.continuation) this.#headers(found)
    }
    this.#wake()
  }

  #headers({ flags, streamId, payload }: RawFrame): void {
    this.#block = this.#block.length === 0 ? payload : Buffer.concat([this.#block, payload])
    if ((flags & FLAG.endHeaders) === 0) return
    this.#decoder.decode(this.#block, (name, value) => {
      if (name === ':status') this.#statuses.set(streamId, Number(value))
    })
    this.#block = EMPTY
  }

  #lastWords(): string {
    const said = this.frames.findLast(({ type }) => type === FRAME.goaway)?.payload
    return said ? `: GOAWAY ${said.readUInt32BE(4)}, ${said.toString('utf8', 8)}` : ''
  }

  #wake(): void {
    for (const watch of this.#watchers) watch()
  }

  #wait<T>(look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const watch = () => {
        const found = look()
        if (found !== undefined) resolve(found)
        else if (this.isClosed)
          reject(new Error(`the connection ended without what was waited for${this.#lastWords()}`))
        else return
        this.#watchers.delete(watch)
      }
      this.#watchers.add(watch)
      watch()
    })
  }
}

const EMPTY: Buffer = Buffer.alloc(0)
