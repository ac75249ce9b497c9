/**
 * Sessions of one pod, shared by its connections to the same peer. Rules:
 * - a session is used until it is full; then another is opened beside it.
 * - so is one when every session carries bulk: a small request must not wait behind megabytes. Up to a few, and not for
 *   longer than somebody is patient.
 * - one attempt at a time, but one that hangs holds nobody up: for who has waited `impatienceMs` another is started
 *   beside it, up to a few, and whichever is ready first serves all.
 * - a peer that allows no streams at all is waited for on the session there is, not asked on ever more of them.
 * - a session that no stream has used for `idleMs` is closed in order.
 */
import type { Cancellation } from '../../lib/cancel.ts'
import { CulvertError } from '../../lib/errors.ts'
import type { ClientSession } from './client.ts'

export interface PoolOptions {
  /** Streams on one session; the peer's own limit may be lower. */
  readonly maxStreams: number
  readonly idleMs: number
  readonly impatienceMs: number
}

export const DEFAULT_POOL: PoolOptions = { maxStreams: 100, idleMs: 300_000, impatienceMs: 250 }

/** Attempts at one peer at once: enough to get past one that hangs. */
const MAX_ATTEMPTS = 4

/** Sessions with one peer from which on new streams share one with bulk. */
const MAX_FOR_BULK = 4

interface Waiter {
  take(session: ClientSession): void
  fail(error: unknown): void
}

interface Peer {
  readonly sessions: Set<ClientSession>
  readonly waiting: Set<Waiter>
  attempts: number
  attemptedAt: number
}

interface Idle {
  sinceMs: number
  timer: NodeJS.Timeout
}

export class HbonePool {
  readonly #options: PoolOptions
  readonly #peers = new Map<string, Peer>()
  /** Sessions that were idle, and since when: one that is used and idle again in between keeps its place and its timer. */
  readonly #idle = new Map<ClientSession, Idle>()
  #isClosed = false

  constructor(options: PoolOptions = DEFAULT_POOL) {
    this.#options = options
  }

  get sessionCount(): number {
    let count = 0
    for (const peer of this.#peers.values()) count += peer.sessions.size
    return count
  }

  /**
   * A session to the peer named by `key`, with room for one stream, which is reserved: the caller lowers
   * `session.reserved` when it opens the stream or gives up. `open` connects and resolves with a ready session.
   * Rejects with what `open` rejected with, or the signal's reason.
   */
  acquire(key: string, open: () => Promise<ClientSession>, signal: Cancellation): Promise<ClientSession> {
    if (this.#isClosed) return Promise.reject(new CulvertError('CLOSED', 'the pod is leaving the mesh'))
    const peer = this.#peers.get(key) ?? newPeer()
    this.#peers.set(key, peer)
    const ready =
      this.#withRoom(peer) ?? (peer.sessions.size >= MAX_FOR_BULK ? this.#anyWithRoom(peer) : undefined)
    if (ready) return Promise.resolve(this.#reserve(ready))
    return this.#wait(key, peer, open, signal)
  }

  /** Tells every peer that this pod opens no more streams; sessions end with their last stream. */
  goaway(): void {
    this.#isClosed = true
    for (const peer of this.#peers.values()) for (const session of peer.sessions) session.goaway()
  }

  /** Ends every session now. */
  destroy(error?: Error): void {
    this.#isClosed = true
    for (const peer of this.#peers.values()) {
      for (const session of peer.sessions) session.destroy(error)
      for (const waiter of peer.waiting)
        waiter.fail(error ?? new CulvertError('CLOSED', 'the pod has left the mesh'))
    }
    this.#peers.clear()
  }

  #wait(
    key: string,
    peer: Peer,
    open: () => Promise<ClientSession>,
    signal: Cancellation,
  ): Promise<ClientSession> {
    return new Promise((resolve, reject) => {
      const done = () => {
        peer.waiting.delete(waiter)
        clearTimeout(impatient)
        signal.removeEventListener('abort', abort)
        this.#forgetIfEmpty(key, peer)
      }
      const abort = () => {
        done()
        reject(signal.reason)
      }
      const waiter: Waiter = {
        take: session => {
          done()
          resolve(session)
        },
        fail: error => {
          done()
          reject(error)
        },
      }
      const impatient = setTimeout(() => this.#attemptBeside(key, peer, open), this.#options.impatienceMs)
      peer.waiting.add(waiter)
      signal.addEventListener('abort', abort, { once: true })
      if (peer.attempts === 0 || peer.waiting.size > peer.attempts * this.#options.maxStreams)
        this.#attempt(key, peer, open)
    })
  }

  /** Someone has waited long: one attempt more, though not one for each who waits. */
  #attemptBeside(key: string, peer: Peer, open: () => Promise<ClientSession>): void {
    this.#serve(peer, true)
    if (peer.waiting.size === 0) return
    const isTooSoon = performance.now() - peer.attemptedAt < this.#options.impatienceMs * 0.9
    if (peer.attempts < MAX_ATTEMPTS && !isTooSoon) this.#attempt(key, peer, open)
  }

  #attempt(key: string, peer: Peer, open: () => Promise<ClientSession>): void {
    for (const session of peer.sessions) if (session.isShut) return
    peer.attempts++
    peer.attemptedAt = performance.now()
    open().then(
      session => {
        peer.attempts--
        this.#adopt(key, peer, session, open)
      },
      (error: unknown) => {
        peer.attempts--
        // Others may still succeed; the last attempt's failure is everyone's whom no session can take.
        if (peer.attempts === 0) this.#serve(peer, true)
        if (peer.attempts === 0) for (const waiter of peer.waiting) waiter.fail(error)
        this.#forgetIfEmpty(key, peer)
      },
    )
  }

  #adopt(key: string, peer: Peer, session: ClientSession, open: () => Promise<ClientSession>): void {
    if (this.#isClosed) {
      session.goaway()
      return
    }
    this.#peers.set(key, peer)
    peer.sessions.add(session)
    session.onClosed(() => {
      peer.sessions.delete(session)
      clearTimeout(this.#idle.get(session)?.timer)
      this.#idle.delete(session)
      this.#forgetIfEmpty(key, peer)
    })
    session.onRoom(() => {
      this.#serve(peer)
      if (session.openStreams === 0 && session.reserved === 0) this.#watchIdle(session)
    })
    const hadRoom = session.capacity(this.#options.maxStreams) > 0
    this.#serve(peer)
    // More wait than one session takes: the next one, unless the peer allows no stream at all.
    if (hadRoom && peer.waiting.size > 0 && peer.attempts === 0) this.#attempt(key, peer, open)
    if (session.openStreams > 0 || session.reserved > 0) return
    // The last of several attempts, when the others have served everyone: it is not kept.
    const isSpare = [...peer.sessions].some(
      other => other !== session && !other.isBulky && other.capacity(this.#options.maxStreams) > 0,
    )
    if (isSpare) session.goaway()
    else this.#watchIdle(session)
  }

  /** `byAny`: by sessions that carry bulk, too. */
  #serve(peer: Peer, byAny = false): void {
    for (const waiter of peer.waiting) {
      const session = this.#withRoom(peer) ?? (byAny ? this.#anyWithRoom(peer) : undefined)
      if (!session) return
      waiter.take(this.#reserve(session))
    }
  }

  /** The first session that has room and carries no bulk: always the same, so that idle ones can end. */
  #withRoom(peer: Peer): ClientSession | undefined {
    for (const session of peer.sessions)
      if (session.capacity(this.#options.maxStreams) > 0 && !session.isBulky) return session
    return undefined
  }

  /** Of all that have room the one with the fewest streams. */
  #anyWithRoom(peer: Peer): ClientSession | undefined {
    let best: ClientSession | undefined
    for (const session of peer.sessions) {
      if (session.capacity(this.#options.maxStreams) <= 0) continue
      if (!best || session.openStreams < best.openStreams) best = session
    }
    return best
  }

  #reserve(session: ClientSession): ClientSession {
    session.reserved++
    return session
  }

  #watchIdle(session: ClientSession): void {
    if (session.isClosed) return
    const sinceMs = performance.now()
    const idle = this.#idle.get(session)
    if (idle) idle.sinceMs = sinceMs
    else this.#idle.set(session, { sinceMs, timer: this.#lookAgain(session, this.#options.idleMs) })
  }

  #lookAgain(session: ClientSession, afterMs: number): NodeJS.Timeout {
    const look = () => {
      const idle = this.#idle.get(session)
      if (!idle) return
      const isUsed = session.openStreams > 0 || session.reserved > 0
      const leftMs = idle.sinceMs + this.#options.idleMs - performance.now()
      if (isUsed) this.#idle.delete(session)
      else if (leftMs > 0) idle.timer = this.#lookAgain(session, leftMs)
      else session.goaway()
    }
    return setTimeout(look, afterMs).unref()
  }

  #forgetIfEmpty(key: string, peer: Peer): void {
    if (
      peer.sessions.size === 0 &&
      peer.waiting.size === 0 &&
      peer.attempts === 0 &&
      this.#peers.get(key) === peer
    )
      this.#peers.delete(key)
  }
}

function newPeer(): Peer {
  return { sessions: new Set(), waiting: new Set(), attempts: 0, attemptedAt: 0 }
}
