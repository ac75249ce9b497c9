/** Readiness of many descriptors, asked of the kernel in one call: epoll(7). */
import { constants } from 'node:os'
import { closeFd } from './fd.ts'
import { check, lastErrno, libc, syscallError } from './libc.ts'

// sys/epoll.h
export const EPOLLIN = 0x1
/** There is urgent data (RFC 9293 §3.8.5). */
export const EPOLLPRI = 0x2
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
/** The peer has ended its direction. */
export const EPOLLRDHUP = 0x2000
/** Told once when it becomes so, instead of as long as it is so. */
export const EPOLLET = 0x8000_0000
const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3
/** `struct epoll_event` is packed on x64 alone. */
const EVENT = process.arch === 'x64' ? { bytes: 12, dataAt: 4 } : { bytes: 16, dataAt: 8 }

export class Epoll {
  readonly #fd: number
  readonly #found: Uint8Array
  readonly #view: DataView
  readonly #event = new Uint8Array(EVENT.bytes)
  readonly #eventView = new DataView(this.#event.buffer)
  readonly #most: number

  /** `most`: events that one `wait` gives. Throws `SYSCALL`. */
  constructor(most: number) {
    this.#most = most
    this.#found = new Uint8Array(EVENT.bytes * most)
    this.#view = new DataView(this.#found.buffer)
    this.#fd = check(libc.epollCreate(EPOLL_CLOEXEC), 'epoll_create1')
  }

  /**
   * `events`: EPOLLIN, EPOLLOUT, both or neither, and how; errors and the end of both directions are always told. `tag`, 32
   * bits, is told with each. Throws `SYSCALL`.
   */
  add(fd: number, events: number, tag = 0): void {
    check(libc.epollCtl(this.#fd, EPOLL_CTL_ADD, fd, this.#of(fd, events, tag)), `epoll_ctl(ADD, ${fd})`)
  }

  /** Throws `SYSCALL`. */
  change(fd: number, events: number, tag = 0): void {
    check(libc.epollCtl(this.#fd, EPOLL_CTL_MOD, fd, this.#of(fd, events, tag)), `epoll_ctl(MOD, ${fd})`)
  }

  /** Before the descriptor is closed: should a copy of it live on elsewhere, closing alone would not do it. Throws `SYSCALL`. */
  remove(fd: number): void {
    check(libc.epollCtl(this.#fd, EPOLL_CTL_DEL, fd, this.#event), `epoll_ctl(DEL, ${fd})`)
  }

  /** How many are ready; waits for the first one as long as said, -1 for ever. Throws `SYSCALL`. */
  wait(timeoutMs: number): number {
    const count = libc.epollWait(this.#fd, this.#found, this.#most, timeoutMs)
    if (count >= 0) return count
    const errno = lastErrno()
    if (errno === constants.errno.EINTR) return 0
    throw syscallError(errno, 'epoll_wait')
  }

  /** The descriptor of what the last `wait` found at `index`. */
  fdAt(index: number): number {
    return this.#view.getInt32(index * EVENT.bytes + EVENT.dataAt, true)
  }

  /** The tag that it was added with. */
  tagAt(index: number): number {
    return this.#view.getInt32(index * EVENT.bytes + EVENT.dataAt + 4, true)
  }

  eventsAt(index: number): number {
    return this.#view.getUint32(index * EVENT.bytes, true)
  }

  close(): void {
    closeFd(this.#fd)
  }

  #of(fd: number, events: number, tag: number): Uint8Array {
    this.#eventView.setUint32(0, events, true)
    this.#eventView.setInt32(EVENT.dataAt, fd, true)
    this.#eventView.setInt32(EVENT.dataAt + 4, tag, true)
    return this.#event
  }
}
