/**
 * Descriptors for tests of the data path: connections whose far end is moved by bare system calls, so that what the near
 * end meets has all happened before its loop looks.
 */
import type { Test } from 'tap'
import { NOTHING, type SocketFailure, type TcpOwner, type TcpSocket } from '../../agent/io/tcp.ts'
import { closeFd } from '../../agent/sys/fd.ts'
import { lastErrno, libc } from '../../agent/sys/libc.ts'
import { encodeSockaddr } from '../../agent/sys/sockaddr.ts'
import { connectSocket, listenTcp } from '../../agent/sys/socket.ts'
import { localAddress, setLinger } from '../../agent/sys/sockopt.ts'

const SOCK_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
const MSG_NOSIGNAL = 0x4000
const MSG_OOB = 1
const SHUT_WR = 1

/** A TCP connection as two non-blocking descriptors; whoever takes one closes it. */
export async function fdPair(): Promise<[near: number, far: number]> {
  const listener = listenTcp({ port: 0, ipv6: false })
  try {
    const far = connectSocket({ family: 4, mark: 0, keepalive: 'none' })
    const address = encodeSockaddr('127.0.0.1', localAddress(listener)!.port)
    libc.connect(far, address, address.length)
    for (;;) {
      const near = libc.accept4(listener, null, null, SOCK_CLOEXEC_NONBLOCK)
      if (near >= 0) return [near, far]
      await new Promise(resolve => setImmediate(resolve))
    }
  } finally {
    closeFd(listener)
  }
}

/** One end of a connection, moved by bare calls. */
export class BareEnd {
  readonly fd: number
  #isClosed = false

  constructor(t: Test, fd: number) {
    this.fd = fd
    t.teardown(() => this.close())
  }

  /** How many bytes the kernel took. */
  send(bytes: Buffer | string): number {
    return this.#send(bytes, MSG_NOSIGNAL)
  }

  /** The last byte is urgent (RFC 9293 §3.8.5). */
  sendUrgent(bytes: string): number {
    return this.#send(bytes, MSG_NOSIGNAL | MSG_OOB)
  }

  end(): void {
    libc.shutdown(this.fd, SHUT_WR)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    closeFd(this.fd)
  }

  reset(): void {
    setLinger(this.fd, 0)
    this.close()
  }

  /** What is there now: undefined when there is nothing, empty at the end. */
  receive(most = 1024 * 1024): Buffer | undefined {
    const into = Buffer.allocUnsafe(most)
    const count = libc.recv(this.fd, into, most, 0)
    return count < 0 ? undefined : into.subarray(0, count)
  }

  /** Everything until the end. */
  async receiveAll(): Promise<Buffer> {
    const pieces: Buffer[] = []
    for (;;) {
      const piece = this.receive()
      if (piece?.length === 0) return Buffer.concat(pieces)
      if (piece) pieces.push(piece)
      else await new Promise(resolve => setImmediate(resolve))
    }
  }

  #send(bytes: Buffer | string, flags: number): number {
    const all = Buffer.from(bytes)
    const sent = libc.send(this.fd, all, all.length, flags)
    if (sent < 0) throw new Error(`errno ${lastErrno()}`)
    return sent
  }
}

/** Owns a socket and keeps what it hears. */
export class Hearer implements TcpOwner {
  /** `readable`, `drained`, `end`, and the code of a failure, in the order they were heard. */
  readonly heard: string[] = []
  readonly #pieces: Buffer[] = []
  readonly #watchers = new Set<() => void>()
  readonly #piece: Buffer
  socket: TcpSocket | undefined
  onReadable: (() => void) | undefined
  onDrained: (() => void) | undefined

  /** Reads so many bytes each time it is told. */
  constructor(most = 64 * 1024) {
    this.#piece = Buffer.allocUnsafe(most)
  }

  get text(): string {
    return Buffer.concat(this.#pieces).toString('latin1')
  }

  get hasEnded(): boolean {
    return this.heard.includes('end')
  }

  readable(): void {
    this.heard.push('readable')
    if (this.onReadable) this.onReadable()
    else this.take()
    this.#wake()
  }

  /** Reads once. */
  take(): number {
    const count = this.socket!.read(this.#piece, this.#piece.length)
    if (count === 0) {
      this.heard.push('end')
      this.socket!.pause()
    } else if (count !== NOTHING) this.#pieces.push(Buffer.from(this.#piece.subarray(0, count)))
    return count
  }

  drained(): void {
    this.heard.push('drained')
    this.onDrained?.()
    this.#wake()
  }

  failed(error: SocketFailure): void {
    this.heard.push(error.code)
    this.#wake()
  }

  async until(holds: () => boolean): Promise<void> {
    if (holds()) return
    await new Promise<void>(resolve => {
      const watch = () => {
        if (!holds()) return
        this.#watchers.delete(watch)
        resolve()
      }
      this.#watchers.add(watch)
    })
  }

  #wake(): void {
    for (const watch of this.#watchers) watch()
  }
}

/** Resolves when the loop has looked at everything that had happened by now. */
export async function settled(): Promise<void> {
  for (let turns = 0; turns < 4; turns++) await new Promise(resolve => setTimeout(resolve, 0))
}
