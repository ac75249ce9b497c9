/**
 * A TCP socket of the data path, on the thread's own event loop. Its owner asks for bytes when there are some and hands
 * bytes over; what the kernel does not take is kept here, and the owner is told when it has gone. Rules:
 * - both directions end by themselves: the end of what comes in is `read` giving 0, `end()` is FIN after what was written.
 * - `failed` or `destroy()`, whichever is first, is the last that is heard of it; the descriptor is closed by then.
 * - a socket that nobody reads from still notices a reset.
 * The kernel is asked once for everything that may happen to a socket, and tells each change once: a connection costs
 * one `epoll_ctl`, however often it is paused.
 */
import { constants } from 'node:os'
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from '../sys/epoll.ts'
import { closeFd } from '../sys/fd.ts'
import { errnoName, lastErrno, libc } from '../sys/libc.ts'
import { setLinger, socketError } from '../sys/sockopt.ts'
import { loop, type Watcher } from './loop.ts'

/** What a socket tells its owner. None of these may throw. */
export interface TcpOwner {
  /** There are bytes, or the end, to read. Told again until `read` has given `NOTHING` or less than was asked for, unless `pause`d. */
  readable(): void
  /** The kernel has taken more of what was kept, `queued` says how much is left; or the connection that was begun stands. */
  drained(): void
  /** The connection is lost; the socket is closed. */
  failed(error: SocketFailure): void
}

/** A failed system call on a socket; `code` is the errno's name. */
export class SocketFailure extends Error {
  override readonly name = 'SocketFailure'
  readonly code: string

  constructor(errno: number, during: string) {
    const code = errnoName(errno)
    super(`${during} ${code}`)
    this.code = code
  }
}

const { EAGAIN, EINTR, EINPROGRESS } = constants.errno
const MSG_NOSIGNAL = 0x4000 // sys/socket.h
const SHUT_WR = 1
const EVERYTHING = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET
/** What `read` gives when there is nothing to read now; the owner is told when there is. */
export const NOTHING = -1

export class TcpSocket implements Watcher {
  #fd: number
  #owner: TcpOwner
  #isReading = false
  #isConnecting = false
  /** There may be something to read: the kernel has said so, and no read has found the end of it. */
  #mayRead = false
  #isReadPlanned = false
  /** A read that gives less than was asked for has not found all there is: the end is behind it, or an urgent byte. */
  #isMoreBehind = false
  #queue: Buffer[] = []
  #queued = 0
  #isEnding = false
  #isEnded = false
  #onEnded: (() => void) | undefined
  /** Met, and not told yet. */
  #failure: SocketFailure | undefined

  /** Takes a connected, non-blocking socket, which is its own from here on. Not read from until `resume()`. Throws `SYSCALL`. */
  constructor(fd: number, owner: TcpOwner) {
    this.#fd = fd
    this.#owner = owner
    loop.add(fd, EVERYTHING, this)
  }

  /** Begins to connect; `drained` is told once the connection stands. Takes the descriptor. Throws `SYSCALL`. */
  static connecting(fd: number, address: Uint8Array, owner: TcpOwner): TcpSocket {
    const errno = libc.connect(fd, address, address.length) < 0 ? lastErrno() : 0
    const socket = new TcpSocket(fd, owner)
    if (errno !== 0 && errno !== EINPROGRESS && errno !== EINTR) {
      socket.#failSoon(new SocketFailure(errno, 'connect'))
      return socket
    }
    socket.#isConnecting = true
    return socket
  }

  /** The descriptor, or -1 once it is closed. */
  get fd(): number {
    return this.#fd
  }

  get isClosed(): boolean {
    return this.#fd < 0
  }

  /** Bytes written that the kernel has not taken. */
  get queued(): number {
    return this.#queued
  }

  /** FIN is out. */
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Another takes over. */
  set owner(owner: TcpOwner) {
    this.#owner = owner
  }

  resume(): void {
    if (this.#isReading || this.#fd < 0) return
    this.#isReading = true
    if (this.#mayRead) this.#planRead()
  }

  pause(): void {
    this.#isReading = false
  }

  /**
   * Reads at most `most` bytes: how many there were, 0 for the end, `NOTHING` when there is nothing now or the connection
   * is lost (then `failed` was told).
   */
  read(into: Buffer, most: number): number {
    if (this.#fd < 0) return NOTHING
    const count = libc.recv(this.#fd, into, most, 0)
    // Less than was asked for is all there was (epoll(7), "Do I need to continuously read"), with two exceptions.
    if (count < most && !(this.#isMoreBehind && count > 0)) this.#mayRead = false
    if (count >= 0) return count
    const errno = lastErrno()
    if (errno !== EAGAIN && errno !== EINTR) this.#fail(new SocketFailure(errno, 'read'))
    return NOTHING
  }

  /** Hands bytes to the kernel; the buffer may be reused at once. False: some are kept, `drained` is told when they have gone. */
  write(bytes: Buffer): boolean {
    if (this.#fd < 0 || this.#isEnding) return true
    let from = 0
    if (this.#queued === 0 && !this.#isConnecting) {
      from = this.#send(bytes)
      if (from === bytes.length || this.#fd < 0) return true
    }
    this.#queue.push(Buffer.from(from === 0 ? bytes : bytes.subarray(from)))
    this.#queued += bytes.length - from
    return false
  }

  /** FIN after what was written; calls back when it is out. */
  end(ended?: () => void): void {
    if (this.#fd < 0 || this.#isEnding) return
    this.#isEnding = true
    this.#onEnded = ended
    if (this.#queued === 0 && !this.#isConnecting) this.#shutdown()
  }

  /** Gives the descriptor to another, with nothing queued; the owner hears nothing more. */
  detach(): number {
    this.#failure = undefined
    const fd = this.#fd
    this.#fd = -1
    if (fd >= 0) loop.remove(fd)
    return fd
  }

  /** Closes it, as SO_LINGER says: in order or with a reset. The owner hears nothing more. */
  destroy(): void {
    this.#failure = undefined
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    loop.forget(fd)
    this.#queue = []
    this.#queued = 0
    closeFd(fd)
  }

  /** Sends RST. */
  reset(): void {
    if (this.#fd >= 0) setLinger(this.#fd, 0)
    this.destroy()
  }

  ready(events: number): void {
    if ((events & EPOLLERR) !== 0) {
      const errno = socketError(this.#fd)
      if (errno !== 0) return this.#fail(new SocketFailure(errno, this.#isConnecting ? 'connect' : 'read'))
    }
    if ((events & EPOLLOUT) !== 0) this.#writable()
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP)) === 0 || this.#fd < 0) return
    this.#mayRead = true
    if ((events & (EPOLLRDHUP | EPOLLPRI)) !== 0) this.#isMoreBehind = true
    if (this.#isReading) this.#read()
  }

  #read(): void {
    this.#owner.readable()
    // It has had its share of this turn; the kernel will not tell again what it has told.
    if (this.#mayRead && this.#isReading) this.#planRead()
  }

  #planRead(): void {
    if (this.#isReadPlanned) return
    this.#isReadPlanned = true
    loop.nextTurn(() => {
      this.#isReadPlanned = false
      if (this.#mayRead && this.#isReading && this.#fd >= 0) this.#read()
    })
  }

  #writable(): void {
    const stands = this.#isConnecting
    this.#isConnecting = false
    if (this.#queue.length === 0 && !stands) return
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!
      const sent = this.#send(first)
      if (this.#fd < 0) return
      this.#queued -= sent
      if (sent < first.length) {
        this.#queue[0] = first.subarray(sent)
        break
      }
      this.#queue.shift()
    }
    if (this.#isEnding && this.#queue.length === 0) this.#shutdown()
    if (this.#fd >= 0) this.#owner.drained()
  }

  /** What the kernel takes now. */
  #send(bytes: Buffer): number {
    const sent = libc.send(this.#fd, bytes, bytes.length, MSG_NOSIGNAL)
    if (sent >= 0) return sent
    const errno = lastErrno()
    if (errno !== EAGAIN && errno !== EINTR) this.#failSoon(new SocketFailure(errno, 'write'))
    return 0
  }

  #shutdown(): void {
    if (this.#fd < 0 || this.#isEnded) return
    if (libc.shutdown(this.#fd, SHUT_WR) < 0)
      return this.#failSoon(new SocketFailure(lastErrno(), 'shutdown'))
    this.#isEnded = true
    this.#onEnded?.()
  }

  /** Not in the middle of the owner's own call. */
  #failSoon(error: SocketFailure): void {
    this.destroy()
    this.#failure = error
    loop.afterTurn(() => {
      if (this.#failure !== error) return
      this.#failure = undefined
      this.#owner.failed(error)
    })
  }

  #fail(error: SocketFailure): void {
    if (this.#fd < 0) return
    this.destroy()
    this.#owner.failed(error)
  }
}
