/** Reads what came back from whom was fired at: whether it still speaks HTTP/2, and the GOAWAY that it ended with. */
import { codeName, FRAME, FRAME_HEADER_BYTES, PREFACE } from '../../agent/hbone/protocol.ts'

export interface Goaway {
  readonly code: number
  readonly name: string
  readonly text: string
}

/** More is no control frame of ours. */
const MAX_KEPT = 16_384

export class Answers {
  /** The last one that is no mere goodbye. */
  goaway: Goaway | undefined
  /** Streams that were answered. */
  answered = 0
  resets = 0
  frames = 0
  /** What is wrong with the bytes as HTTP/2. */
  problem: string | undefined
  #skip: number
  #head = Buffer.alloc(0)
  #payload: Buffer[] | undefined
  #left = -1
  #type = 0

  /** A client's bytes begin with a preface. */
  constructor({ isClient = false } = {}) {
    this.#skip = isClient ? PREFACE.length : 0
  }

  take(chunk: Buffer): void {
    let at = Math.min(this.#skip, chunk.length)
    this.#skip -= at
    while (at < chunk.length && this.problem === undefined) {
      if (this.#left < 0) {
        const need = FRAME_HEADER_BYTES - this.#head.length
        this.#head = Buffer.concat([this.#head, chunk.subarray(at, at + need)])
        at += need
        if (this.#head.length === FRAME_HEADER_BYTES) this.#begin()
      } else {
        const piece = chunk.subarray(at, at + this.#left)
        this.#payload?.push(piece)
        this.#left -= piece.length
        at += piece.length
      }
      if (this.#left === 0) this.#finish()
    }
  }

  #begin(): void {
    this.#left = this.#head.readUIntBE(0, 3)
    this.#type = this.#head[3]!
    this.#head = Buffer.alloc(0)
    this.#payload = this.#type === FRAME.goaway && this.#left <= MAX_KEPT ? [] : undefined
    if (this.#type > FRAME.continuation) this.problem = `a frame of type ${this.#type}`
  }

  #finish(): void {
    this.#left = -1
    this.frames++
    if (this.#type === FRAME.headers) this.answered++
    if (this.#type === FRAME.rstStream) this.resets++
    if (this.#type !== FRAME.goaway || !this.#payload) return
    const payload = Buffer.concat(this.#payload)
    if (payload.length < 8) {
      this.problem = `a GOAWAY of ${payload.length} bytes`
      return
    }
    const code = payload.readUInt32BE(4)
    if (code !== 0 || !this.goaway)
      this.goaway = { code, name: codeName(code), text: payload.toString('utf8', 8) }
  }
}
