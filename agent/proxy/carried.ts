/** A connection that is carried, as its relay sees it: bytes are counted on it, and the end of the one is the end of both. */
import type { Connection } from './connection.ts'
import type { Relay, RelayEnd, RelayOwner } from './relay.ts'

export class Carried implements RelayOwner {
  readonly #connection: Connection
  readonly #isFromSource: boolean

  /** `app` says which end of the connection the relay's application is. */
  constructor(connection: Connection, app: 'source' | 'destination') {
    this.#connection = connection
    this.#isFromSource = app === 'source'
  }

  fromApp(bytes: number): void {
    if (this.#isFromSource) this.#connection.toDestination += bytes
    else this.#connection.fromDestination += bytes
  }

  toApp(bytes: number): void {
    if (this.#isFromSource) this.#connection.fromDestination += bytes
    else this.#connection.toDestination += bytes
  }

  ended(end: RelayEnd): void {
    this.#connection.close(end)
  }
}

/** Who cuts the connection cuts its relay. A function of its own: a closure keeps everything alive that stands around it. */
export function cutWith(relay: Relay): (why: string) => void {
  return why => relay.cut(why)
}
