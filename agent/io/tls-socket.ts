/**
 * TLS over a socket of the data path: the handshake, then a transport for a session. Records are decrypted into one
 * buffer of the thread's, as many as have come, and handed on together; what is written is encrypted at once.
 */
import type { X509Certificate } from 'node:crypto'
import { LINGER_MS } from '../hbone/limits.ts'
import type { Transport, TransportSink } from '../hbone/transport.ts'
import { EPOLLIN, EPOLLOUT } from '../sys/epoll.ts'
import { closeFd } from '../sys/fd.ts'
import { libc } from '../sys/libc.ts'
import { setLinger } from '../sys/sockopt.ts'
import { ENDED, TlsChannel, TlsFailure, WANTS_WRITE } from '../sys/tls-channel.ts'
import type { TlsContext } from '../sys/tls-context.ts'
import { loop, type Watcher } from './loop.ts'
import { isShared, Mover, SMALL_PORTION } from './portion.ts'

const SHUT_WR = 1
/** The most that a record holds (RFC 8446 §5.1). */
const RECORD = 16_384
/**
 * Every thread has its own copy of this module, and a buffer is used by one socket at a time. With OpenSSL's own, of the
 * same size, it still fits into a processor's cache.
 */
const received = Buffer.allocUnsafeSlow(144 * 1024)
/**
 * Whose handshake is to go on. Its arithmetic takes half a millisecond and more, and whoever can reach the pod can ask for
 * it: one in each turn, so that what is established waits for one of them and not for all that have come.
 */
const handshakes: TlsSocket[] = []
/** Buffers full that one socket may read before others have their turn. */
const FILLS = 1
/** What is encrypted and waits is not counted: this stands for it. */
const UNFLUSHED = 128 * 1024

export class TlsSocket implements Transport, Watcher {
  #fd: number
  readonly #channel: TlsChannel
  #events = 0
  /** Resolves when the peer is authenticated: its chain, not yet who it is. Rejects with `TlsFailure`; then it is closed. */
  readonly secured: Promise<void>
  #handshake: PromiseWithResolvers<void> | undefined = Promise.withResolvers()
  #isInHandshakes = false
  #sink: TransportSink | undefined
  #queue: Buffer[] = []
  #queued = 0
  /** Encrypted, and not all with the kernel yet. */
  #isUnflushed = false
  /** Ends in order: `lingering` until the peer has ended too. */
  #ending: 'no' | 'writing' | 'lingering' = 'no'
  #giveUp: NodeJS.Timeout | undefined
  readonly #mover = new Mover()
  /** What the last `#fill` found after what it gave. */
  #state: 'dry' | 'more' | 'ended' = 'dry'

  /** Takes a connected, non-blocking socket, which is its own from here on. Throws `TlsFailure` or `SYSCALL`. */
  constructor(fd: number, context: TlsContext, side: 'client' | 'server') {
    this.#fd = fd
    this.#channel = new TlsChannel(context, fd, side)
    this.secured = this.#handshake!.promise
    this.secured.catch(() => undefined) // whoever asks for it hears of it
    this.#events = EPOLLIN
    loop.add(fd, EPOLLIN, this)
    if (side === 'client') loop.afterTurn(() => this.#shakeHands())
  }

  get fd(): number {
    return this.#fd
  }

  get isClosed(): boolean {
    return this.#fd < 0
  }

  get backlog(): number {
    return this.#queued + (this.#isUnflushed ? UNFLUSHED : 0)
  }

  peerCertificate(): X509Certificate | undefined {
    return this.#channel.peerCertificate()
  }

  alpn(): string {
    return this.#channel.alpn()
  }

  start(sink: TransportSink): void {
    this.#sink = sink
    this.#interest(EPOLLIN)
    if (this.#channel.hasMore) loop.nextTurn(() => this.#readable()) // came with the handshake
  }

  write(bytes: Buffer, length: number): void {
    if (this.#fd < 0 || this.#ending !== 'no') return
    this.#mover.moved(length)
    if (this.#queued === 0 && this.#send(bytes, length)) return
    if (this.#fd < 0) return // lost
    this.#queue.push(Buffer.from(bytes.subarray(0, length)))
    this.#queued += length
    this.#interest(this.#events | EPOLLOUT)
  }

  soon(callback: () => void): void {
    loop.afterTurn(callback)
  }

  end(): void {
    if (this.#fd < 0 || this.#ending !== 'no') return
    this.#sink = undefined
    this.#ending = 'writing'
    this.#giveUp = setTimeout(() => this.destroy(), LINGER_MS).unref()
    if (this.#queued === 0 && !this.#isUnflushed) this.#endNow()
  }

  destroy(): void {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    this.#sink = undefined
    this.#queue = []
    this.#queued = 0
    clearTimeout(this.#giveUp)
    loop.forget(fd)
    this.#handshake?.reject(this.#silentIf(new TlsFailure('given up', 'CLOSED')))
    this.#handshake = undefined
    this.#channel.free()
    closeFd(fd)
  }

  /** Sends RST. */
  reset(): void {
    if (this.#fd >= 0) setLinger(this.#fd, 0)
    this.destroy()
  }

  ready(events: number): void {
    if (this.#handshake) return this.#queueHandshake()
    if ((events & EPOLLOUT) !== 0) this.#writable()
    if ((events & ~EPOLLOUT) !== 0 && this.#fd >= 0) this.#readable()
  }

  #queueHandshake(): void {
    if (this.#isInHandshakes) return
    this.#isInHandshakes = true
    handshakes.push(this)
    if (handshakes.length === 1) loop.nextTurn(TlsSocket.#nextHandshake)
  }

  static readonly #nextHandshake = (): void => {
    const socket = handshakes.shift()
    if (handshakes.length > 0) loop.nextTurn(TlsSocket.#nextHandshake)
    if (!socket) return
    socket.#isInHandshakes = false
    socket.#shakeHands()
  }

  #shakeHands(): void {
    if (this.#fd < 0 || !this.#handshake) return
    try {
      const wants = this.#channel.handshake()
      if (wants === ENDED) throw new TlsFailure('peer ended the connection', 'ECONNRESET')
      // Until somebody starts to read, what comes waits in the kernel.
      this.#interest(wants === WANTS_WRITE ? EPOLLOUT : wants === 0 ? 0 : EPOLLIN)
      if (wants !== 0) return
      const handshake = this.#handshake
      this.#handshake = undefined
      handshake.resolve()
    } catch (err) {
      this.#handshake?.reject(this.#silentIf(err as TlsFailure))
      this.#handshake = undefined
      this.destroy()
    }
  }

  #silentIf(failure: TlsFailure): TlsFailure {
    failure.isSilent = !this.#channel.hasHeard
    return failure
  }

  #readable(): void {
    if (this.#ending === 'lingering') return this.#discard()
    try {
      for (let fills = 0; fills < FILLS; fills++) {
        const count = this.#fill()
        const state = this.#state
        if (count > 0) {
          this.#mover.moved(count)
          this.#sink?.received(received, count)
        }
        if (this.#fd < 0) return
        if (state === 'ended') return this.#close(undefined)
        if (state === 'dry') return
      }
      // The rest may be in OpenSSL's buffer, where the kernel does not know of it.
      loop.nextTurn(() => this.#fd >= 0 && this.#readable())
    } catch (err) {
      this.#close(err as Error)
    }
  }

  /** Reads what there is, one buffer at most: how many bytes; `#state` says whether there may be more. */
  #fill(): number {
    let count = 0
    this.#state = 'dry'
    const most = (isShared() ? SMALL_PORTION : received.length) - RECORD
    while (count <= most) {
      const got = this.#channel.read(count === 0 ? received : received.subarray(count))
      if (got < 0) {
        if (got === ENDED) this.#state = 'ended'
        return count
      }
      count += got
      // A short record is often the last: asking OpenSSL is cheaper than asking the kernel.
      if (got < RECORD && !this.#channel.hasMore) return count
    }
    this.#state = 'more'
    return count
  }

  #discard(): void {
    try {
      for (let fills = 0; fills < FILLS; fills++) {
        this.#fill()
        if (this.#state === 'ended') return this.destroy()
        if (this.#state === 'dry') return
      }
    } catch {
      this.destroy()
    }
  }

  #writable(): void {
    if (this.#isUnflushed && !this.#flush()) return
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!
      if (!this.#send(first, first.length)) return
      this.#queued -= first.length
      this.#queue.shift()
    }
    if (this.#isUnflushed) return
    this.#interest(EPOLLIN)
    if (this.#ending === 'writing') this.#endNow()
    else this.#sink?.drained()
  }

  #flush(): boolean {
    try {
      this.#isUnflushed = !this.#channel.flush()
      return !this.#isUnflushed
    } catch (err) {
      this.#close(err as Error)
      return false
    }
  }

  /** Reports whether it was taken; else it is to be sent again, the same bytes. */
  #send(bytes: Buffer, length: number): boolean {
    if (this.#isUnflushed) return false
    try {
      const written = this.#channel.write(bytes, length)
      if (written === true) return true
      this.#isUnflushed = written === false
      this.#interest(this.#events | EPOLLOUT)
      return this.#isUnflushed
    } catch (err) {
      const sink = this.#sink
      this.destroy()
      loop.afterTurn(() => sink?.closed(err as Error)) // not in the middle of the session's own call
      return false
    }
  }

  #endNow(): void {
    this.#ending = 'lingering'
    this.#channel.shutdown()
    libc.shutdown(this.#fd, SHUT_WR)
    this.#interest(EPOLLIN)
    // Not now: another socket's bytes may be in the buffer, and its owner still at them.
    loop.nextTurn(() => this.#fd >= 0 && this.#discard())
  }

  #close(error: Error | undefined): void {
    const sink = this.#sink
    this.destroy()
    sink?.closed(error)
  }

  #interest(events: number): void {
    if (this.#fd < 0 || events === this.#events) return
    this.#events = events
    loop.change(this.#fd, events)
  }
}
