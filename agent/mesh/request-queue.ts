/** The requests of one stream, in order: pushed by whoever has one, taken by the transport when it can send. */
import { CulvertError } from '../../lib/errors.ts'

export class RequestQueue<T> implements AsyncIterable<T> {
  readonly #limit: number
  readonly #items: T[] = []
  #wake: (() => void) | undefined
  #isClosed = false

  /** @param limit requests that may wait; a server that sends and never reads must not fill the memory */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Throws `DISCOVERY` when the limit is reached. */
  push(item: T): void {
    if (this.#items.length >= this.#limit)
      throw new CulvertError('DISCOVERY', `the server does not read: ${this.#limit} requests are waiting`)
    this.#items.push(item)
    this.#wake?.()
  }

  /** Ends the stream of requests; what waits is dropped. */
  close(): void {
    this.#isClosed = true
    this.#items.length = 0
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    while (!this.#isClosed) {
      const item = this.#items.shift()
      if (item !== undefined) {
        yield item
        continue
      }
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      await promise
    }
  }
}
