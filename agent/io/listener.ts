/** Accepts the connections of a listening socket on the thread's own event loop. */
import { constants } from 'node:os'
import type { SocketAddress } from '../../lib/address.ts'
import { EPOLLIN } from '../sys/epoll.ts'
import { closeFd } from '../sys/fd.ts'
import { lastErrno, libc, syscallError } from '../sys/libc.ts'
import { decodeSockaddr, SOCKADDR_BYTES } from '../sys/sockaddr.ts'
import { loop, type Watcher } from './loop.ts'

const { EAGAIN, EINTR, ECONNABORTED } = constants.errno
const SOCK_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
/** Connections taken before others have their turn. */
const AT_ONCE = 64
/** Out of descriptors, for one: the queue is looked at again after a while, and not without end. */
const PAUSE_MS = 50

/** Who is at the other end of a connection is told with it: afterwards it may be gone. */
export type Accepted = (fd: number, peer: SocketAddress) => void

const NOBODY: SocketAddress = { ip: '0.0.0.0', port: 0 }
// Reused: the call is synchronous and each thread has its own copy of this module.
const address = new Uint8Array(SOCKADDR_BYTES)
const lengthBytes = new Uint8Array(4)
const addressLength = new DataView(lengthBytes.buffer)

export class Listener implements Watcher {
  readonly #fd: number
  readonly #accepted: Accepted
  readonly #failed: (error: Error) => void
  #pause: NodeJS.Timeout | undefined
  #isClosed = false

  /**
   * Serves the listening, non-blocking socket, which is its own from here on. `accepted` gets a connected, non-blocking
   * descriptor to keep, and its other end. `failed` is told what goes wrong; the listener goes on. Throws `SYSCALL`.
   */
  constructor(fd: number, accepted: Accepted, failed: (error: Error) => void) {
    this.#fd = fd
    this.#accepted = accepted
    this.#failed = failed
    loop.add(fd, EPOLLIN, this)
  }

  ready(): void {
    for (let taken = 0; taken < AT_ONCE && !this.#isClosed; taken++) {
      addressLength.setUint32(0, SOCKADDR_BYTES, true)
      const fd = libc.accept4(this.#fd, address, lengthBytes, SOCK_CLOEXEC_NONBLOCK)
      if (fd >= 0) {
        this.#accepted(fd, decodeSockaddr(address) ?? NOBODY)
        continue
      }
      const errno = lastErrno()
      if (errno === EAGAIN) return
      if (errno === EINTR || errno === ECONNABORTED) continue
      this.#failed(syscallError(errno, 'accept'))
      if (this.#isClosed) return
      loop.remove(this.#fd) // of a socket that is broken it would be told in any case
      this.#pause = setTimeout(() => loop.add(this.#fd, EPOLLIN, this), PAUSE_MS)
      return
    }
  }

  /** Stops accepting. Connections in the queue stay there for whoever else has the socket. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#pause)
    loop.remove(this.#fd)
    closeFd(this.#fd)
  }
}
