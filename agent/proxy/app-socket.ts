/**
 * Sockets toward applications. While a connection is under way they carry SO_LINGER {1, 0}: should this process
 * be killed, the kernel then resets them, and no application takes a crash for an end. An orderly end takes it off.
 */
import { Cancel, type Cancellation } from '../../lib/cancel.ts'
import { CulvertError } from '../../lib/errors.ts'
import { TcpSocket, type SocketFailure, type TcpOwner } from '../io/tcp.ts'
import { setLinger } from '../sys/sockopt.ts'

/** From here on, a close of any kind but `endInOrder` resets the connection. */
export function resetOnClose(socket: TcpSocket): void {
  if (!socket.isClosed) setLinger(socket.fd, 0)
}

/**
 * Sends FIN after what was written. Only once the FIN is out does a close cease to reset: killed before that, the
 * application must not take what it got for everything. Calls back when it is out.
 */
export function endInOrder(socket: TcpSocket, ended: () => void = ignore): void {
  socket.end(() => {
    setLinger(socket.fd, undefined)
    ended()
  })
}

/** Owns a socket from which nobody reads yet, and tells of its loss. */
export class Idle implements TcpOwner {
  readonly #gone = new Cancel()
  readonly #why: string

  constructor(why: string) {
    this.#why = why
  }

  /** Aborts when the connection is lost. */
  get gone(): Cancellation {
    return this.#gone
  }

  readable(): void {}

  drained(): void {}

  failed(error: SocketFailure): void {
    this.#gone.abort(new CulvertError('CLOSED', this.#why, { cause: error }))
  }
}

function ignore(): void {}
