/** The life of one connection, from the SYN we took to the one reason it ended with. */
import type { Reason } from '../../lib/reasons.ts'
import type { ConnectionRecord, PeerInfo, ServiceInfo } from '../worker/messages.ts'

/** Application bytes, counted as they pass. */
export interface ByteCounts {
  toDestination: number
  fromDestination: number
}

export interface ConnectionStart {
  readonly podUid: string
  readonly direction: 'outbound' | 'inbound'
  /** That it holds, or will if it is carried. @default 1 */
  readonly descriptors?: number
  readonly source: PeerInfo & { readonly ip: string; readonly port: number }
  readonly destination: PeerInfo & { readonly ip: string; readonly port: number }
}

/** Hears of every connection. */
export interface ConnectionEvents {
  opened(record: ConnectionRecord): void
  closed(record: ConnectionRecord): void
}

let lastId = 0

export class Connection implements ByteCounts {
  readonly id = ++lastId
  readonly podUid: string
  readonly direction: 'outbound' | 'inbound'
  readonly openedAtMs = Date.now()
  toDestination = 0
  fromDestination = 0
  source: ConnectionStart['source']
  destination: ConnectionStart['destination']
  hboneAddress: string | undefined
  service: ServiceInfo | undefined
  /** Descriptors that it holds. */
  descriptors: number
  /** Set when the connection was established; decides the word it ends with. */
  reason: Reason | undefined
  /** Ends the connection out of order, toward both sides. Set by whoever carries it. */
  cut: (why: string) => void = () => undefined
  readonly #book: ConnectionBook
  #isClosed = false

  constructor(start: ConnectionStart, book: ConnectionBook) {
    this.podUid = start.podUid
    this.direction = start.direction
    this.descriptors = start.descriptors ?? 1
    this.source = start.source
    this.destination = start.destination
    this.#book = book
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** It is carried now, under this word. */
  established(reason: Reason): void {
    this.reason = reason
    this.#book.events.opened(this.record())
  }

  /** It holds another descriptor. */
  holdOneMore(): void {
    this.descriptors++
    this.#book.charge(this.podUid, 1)
  }

  /** It has ended; calls after the first are ignored. */
  close(end: { reason?: Reason; error?: string | undefined; errorCode?: string | undefined } = {}): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.reason ??= end.reason
    this.#book.closed(this, {
      ...this.record(),
      durationMs: Date.now() - this.openedAtMs,
      error: end.error,
      errorCode: end.errorCode,
    })
  }

  record(): ConnectionRecord {
    return {
      id: this.id,
      podUid: this.podUid,
      direction: this.direction,
      reason: this.reason ?? 'unreachable',
      source: this.source,
      destination: this.destination,
      hboneAddress: this.hboneAddress,
      service: this.service,
      bytesSent: this.toDestination,
      bytesReceived: this.fromDestination,
      openedAtMs: this.openedAtMs,
    }
  }
}

/** The connections that are open now. */
export class ConnectionBook {
  readonly events: ConnectionEvents
  readonly #open = new Map<number, Connection>()
  readonly #perPod = new Map<string, number>()
  readonly #waiters = new Set<{ podUid: string | undefined; done: () => void }>()

  constructor(events: ConnectionEvents) {
    this.events = events
  }

  get size(): number {
    return this.#open.size
  }

  open(start: ConnectionStart): Connection {
    const connection = new Connection(start, this)
    this.#open.set(connection.id, connection)
    this.charge(start.podUid, connection.descriptors)
    return connection
  }

  /** Counts descriptors of a pod's. */
  charge(podUid: string, descriptors: number): void {
    const held = this.descriptorsOf(podUid) + descriptors
    if (held > 0) this.#perPod.set(podUid, held)
    else this.#perPod.delete(podUid)
  }

  /** Descriptors that the open connections of the pod hold: 0 when none is open. */
  descriptorsOf(podUid: string): number {
    return this.#perPod.get(podUid) ?? 0
  }

  of(podUid?: string): Connection[] {
    const all = [...this.#open.values()]
    return podUid === undefined ? all : all.filter(connection => connection.podUid === podUid)
  }

  closed(connection: Connection, record: ConnectionRecord): void {
    this.#open.delete(connection.id)
    this.charge(connection.podUid, -connection.descriptors)
    this.events.closed(record)
    for (const waiter of this.#waiters) if (this.#isEmpty(waiter.podUid)) waiter.done()
  }

  /**
   * Waits until no connection (of the pod) is open, at most until the deadline; cuts those that are left and
   * gives back what was cut.
   */
  async drain(deadlineMs: number, podUid?: string): Promise<ConnectionRecord[]> {
    if (!this.#isEmpty(podUid) && deadlineMs > 0)
      await new Promise<void>(resolve => {
        const done = () => {
          clearTimeout(timer)
          this.#waiters.delete(waiter)
          resolve()
        }
        const timer = setTimeout(done, deadlineMs)
        const waiter = { podUid, done }
        this.#waiters.add(waiter)
      })
    const left = this.of(podUid)
    const records = left.map(connection => connection.record())
    for (const connection of left) connection.cut('cut at the end of the drain period')
    return records
  }

  #isEmpty(podUid: string | undefined): boolean {
    return (podUid === undefined ? this.#open.size : this.descriptorsOf(podUid)) === 0
  }
}
