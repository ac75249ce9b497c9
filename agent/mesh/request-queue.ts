/** The requests of one stream, in order: pushed by whoever has one, taken by the transport when it can send. */
import { CulvertError } from '../../lib/errors.ts'

export class RequestQueue<T> implements AsyncIterable<T> {
  readonly #limit: number
  readonly #items: T[] = []
  readonly #offers = new Set<() => T | undefined>()
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

  /** Has a request made when there is nothing else to send: what comes together until then needs only one. */
  offer(make: () => T | undefined): void {
    this.#offers.add(make)
    this.#wake?.()
  }

  /** Ends the stream of requests; what waits is dropped. */
  close(): void {
    this.#isClosed = true
    this.#items.length = 0
    this.#offers.clear()
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    while (!this.#isClosed) {
      const item = this.#items.shift() ?? this.#made()
      if (item !== undefined) {
        yield item
        continue
      }
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      await promise
    }
  }

  #made(): T | undefined {
    for (const make of this.#offers) {
      this.#offers.delete(make)
      const item = make()
      if (item !== undefined) return item
    }
    return undefined
  }
}
