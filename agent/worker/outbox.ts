/**
 * What a data-plane thread tells the main thread. Every message wakes the main thread, which has the same processors to
 * share: what there is to say of connections, which nobody waits for, is gathered for a moment, as sums and as lines of
 * the access log; everything else goes at once and takes that along.
 */
import type { ConnectionEvents } from '../proxy/connection.ts'
import { AccessLines } from './access-lines.ts'
import type { AccessLogSettings, FromWorker } from './messages.ts'
import { Refusals } from './refusals.ts'
import { Traffic, type Counted } from './traffic.ts'

/** How long it may wait, ms. */
const GATHER_MS = 50

export class Outbox implements ConnectionEvents {
  readonly #post: (message: FromWorker) => void
  readonly #traffic = new Traffic()
  readonly #refusals = new Refusals()
  readonly #lines: AccessLines
  #timer: NodeJS.Timeout | undefined

  constructor(accessLog: AccessLogSettings, post: (message: FromWorker) => void) {
    this.#lines = new AccessLines(accessLog)
    this.#post = post
  }

  set logLevel(level: AccessLogSettings['level']) {
    this.#lines.level = level
  }

  readonly send = (message: FromWorker): void => {
    this.#flush(message)
  }

  opened(connection: Counted): void {
    this.#traffic.opened(connection)
    this.#lines.opened(connection)
    this.#wait()
  }

  closed(connection: Counted): void {
    this.#traffic.closed(connection)
    this.#refusals.closed(connection)
    this.#lines.closed(connection)
    this.#wait()
  }

  /** To be called now and then. */
  tidy(): void {
    this.#traffic.letGo()
  }

  #wait(): void {
    if (this.#traffic.isFull || this.#lines.isFull) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS)
  }

  /** Posts what was gathered, and the message behind it. */
  #flush(message?: FromWorker): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const messages: FromWorker[] = []
    const report = this.#traffic.take()
    if (report) messages.push({ type: 'traffic', report })
    const refusals = this.#refusals.take()
    if (refusals.length > 0) messages.push({ type: 'refusals', refusals })
    const writes = this.#lines.take()
    if (writes.length > 0) messages.push({ type: 'access-log', writes })
    if (message) messages.push(message)
    if (messages.length > 0) this.#post(messages.length === 1 ? messages[0]! : { type: 'several', messages })
  }
}
