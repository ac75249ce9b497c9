/**
 * What a data-plane thread tells the main thread. Every message wakes the main thread, which has the same processors to
 * share: records of connections, which nobody waits for, are gathered for a moment; everything else takes them along.
 */
import type { FromWorker } from './messages.ts'

/** How long a record may wait, ms: as long as Node's timers may be late on such a thread anyway. */
const GATHER_MS = 20
/** Records that are not worth waiting longer with. */
const MOST = 512

export class Outbox {
  readonly #post: (message: FromWorker) => void
  #gathered: FromWorker[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(post: (message: FromWorker) => void) {
    this.#post = post
  }

  readonly send = (message: FromWorker): void => {
    const mayWait = message.type === 'opened' || message.type === 'closed'
    if (!mayWait && this.#gathered.length === 0) return this.#post(message)
    this.#gathered.push(message)
    if (!mayWait || this.#gathered.length >= MOST) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS)
  }

  #flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const messages = this.#gathered
    this.#gathered = []
    this.#post(messages.length === 1 ? messages[0]! : { type: 'several', messages })
  }
}
