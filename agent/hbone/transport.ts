/** What carries a session's bytes: TLS over a socket of the data path, or, between foreign parts, any Duplex of Node's. */
import type { Duplex } from 'node:stream'
import { LINGER_MS } from './limits.ts'

export interface TransportSink {
  /** The first `length` bytes have come. They are the transport's again once this returns: what is kept must be copied. */
  received(bytes: Buffer, length: number): void
  /** What waited to be written has left. */
  drained(): void
  /** Told once, last. Undefined after an orderly end. Not told after `end` or `destroy`. */
  closed(error: Error | undefined): void
}

export interface Transport {
  /** Bytes taken by `write` that the kernel has not taken yet. */
  readonly backlog: number
  readonly isClosed: boolean
  /** Starts to deliver. */
  start(sink: TransportSink): void
  /** Takes the first `length` bytes; the buffer may be reused once this returns. */
  write(bytes: Buffer, length: number): void
  /** Calls back when the events at hand have been served: what they all have written can leave together. */
  soon(callback: () => void): void
  /** Ends in order after what was written; a peer that does not read cannot hold that up for long. */
  end(): void
  /** Ends now. */
  destroy(): void
}

export class StreamTransport implements Transport {
  readonly #stream: Duplex
  #sink: TransportSink | undefined

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('error', err => this.#closed(err))
    stream.on('close', () => this.#closed(undefined))
    stream.on('end', () => this.#closed(undefined))
    stream.on('drain', () => this.#sink?.drained())
  }

  get backlog(): number {
    return this.#stream.writableLength
  }

  get isClosed(): boolean {
    return this.#stream.destroyed
  }

  start(sink: TransportSink): void {
    this.#sink = sink
    this.#stream.on('data', (chunk: Buffer) => this.#sink?.received(chunk, chunk.length))
  }

  write(bytes: Buffer, length: number): void {
    if (this.#stream.writable) this.#stream.write(Buffer.from(bytes.subarray(0, length)))
  }

  soon(callback: () => void): void {
    process.nextTick(callback)
  }

  end(): void {
    this.#sink = undefined
    const giveUp = setTimeout(() => this.#stream.destroy(), LINGER_MS)
    giveUp.unref()
    this.#stream.once('close', () => clearTimeout(giveUp))
    this.#stream.end(() => this.#stream.destroy())
  }

  destroy(): void {
    this.#stream.destroy()
  }

  #closed(error: Error | undefined): void {
    const sink = this.#sink
    this.#sink = undefined
    sink?.closed(error)
  }
}
