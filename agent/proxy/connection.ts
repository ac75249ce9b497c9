/** The life of one connection, from the SYN we took to the one reason it ended with. */
import { IntMap } from '../../lib/int-map.ts'
import type { Reason } from '../../lib/reasons.ts'
import type { ConnectionRecord, PeerInfo, ServiceInfo } from '../worker/messages.ts'
import type { Counted, Series } from '../worker/traffic.ts'

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

/** Hears of every connection. What it is handed goes on changing: whoever keeps it takes its `record()`. */
export interface ConnectionEvents {
  opened(connection: Connection): void
  closed(connection: Connection): void
}

let lastId = 0
const nothingToCut = () => undefined

export class Connection implements ByteCounts, Counted {
  readonly id = ++lastId
  readonly podUid: string
  readonly direction: 'outbound' | 'inbound'
  readonly openedAtMs = Date.now()
  toDestination = 0
  fromDestination = 0
  source: ConnectionStart['source']
  destination: ConnectionStart['destination']
  hboneAddress: string | undefined = undefined
  service: ServiceInfo | undefined = undefined
  /** Descriptors that it holds. */
  descriptors: number
  /** The word it is carried under, once it is; the one it ends with. */
  reason: Reason = 'unreachable'
  durationMs: number | undefined = undefined
  error: string | undefined = undefined
  errorCode: string | undefined = undefined
  /** What it is counted under while it is carried. */
  series: Series | undefined = undefined
  /** Ends the connection out of order, toward both sides. Set by whoever carries it. */
  cut: (why: string) => void = nothingToCut
  readonly #book: ConnectionBook
  #isEstablished = false

  constructor(start: ConnectionStart, book: ConnectionBook) {
    this.podUid = start.podUid
    this.direction = start.direction
    this.descriptors = start.descriptors ?? 1
    this.source = start.source
    this.destination = start.destination
    this.#book = book
  }

  get bytesSent(): number {
    return this.toDestination
  }

  get bytesReceived(): number {
    return this.fromDestination
  }

  get isClosed(): boolean {
    return this.durationMs !== undefined
  }

  /** It is carried now, under this word, which it keeps. */
  established(reason: Reason): void {
    this.reason = reason
    this.#isEstablished = true
    this.#book.events.opened(this)
  }

  /** It holds another descriptor. */
  holdOneMore(): void {
    this.descriptors++
    this.#book.charge(this.podUid, 1)
  }

  /** It has ended; calls after the first are ignored. */
  close(end: { reason?: Reason; error?: string | undefined; errorCode?: string | undefined } = {}): void {
    if (this.isClosed) return
    if (!this.#isEstablished && end.reason) this.reason = end.reason
    this.durationMs = Date.now() - this.openedAtMs
    this.error = end.error
    this.errorCode = end.errorCode
    this.#book.closed(this)
  }

  /** As it is now, for whoever is elsewhere. */
  record(): ConnectionRecord {
    return {
      id: this.id,
      podUid: this.podUid,
      direction: this.direction,
      reason: this.reason,
      source: this.source,
      destination: this.destination,
      hboneAddress: this.hboneAddress,
      service: this.service,
      bytesSent: this.toDestination,
      bytesReceived: this.fromDestination,
      openedAtMs: this.openedAtMs,
      durationMs: this.durationMs,
      error: this.error,
      errorCode: this.errorCode,
    }
  }
}

/** So many pods' counts are kept before those that have nothing open are let go. */
const SWEEP_ABOVE = 1024

/** The connections that are open now. */
export class ConnectionBook {
  readonly events: ConnectionEvents
  readonly #open = new IntMap<Connection>()
  readonly #perPod = new Map<string, number>()
  #sweepAbove = SWEEP_ABOVE
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
    this.#perPod.set(podUid, this.descriptorsOf(podUid) + descriptors)
    // A pod that has none at the moment stays: it may have one, and none again, a thousand times a second.
    if (this.#perPod.size <= this.#sweepAbove) return
    for (const [uid, held] of this.#perPod) if (held <= 0) this.#perPod.delete(uid)
    this.#sweepAbove = Math.max(SWEEP_ABOVE, this.#perPod.size * 2)
  }

  /** Descriptors that the open connections of the pod hold: 0 when none is open. */
  descriptorsOf(podUid: string): number {
    return this.#perPod.get(podUid) ?? 0
  }

  of(podUid?: string): Connection[] {
    const all = this.#open.values()
    return podUid === undefined ? all : all.filter(connection => connection.podUid === podUid)
  }

  /** A connection of its own has ended. */
  closed(connection: Connection): void {
    this.#open.delete(connection.id)
    this.charge(connection.podUid, -connection.descriptors)
    this.events.closed(connection)
    if (this.#waiters.size === 0) return
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
