/**
 * Sockets toward applications. While a connection is under way they carry SO_LINGER {1, 0}: should this process
 * be killed, the kernel then resets them, and no application takes a crash for an end. An orderly end takes it off.
 */
import type { Socket } from 'node:net'
import { setLinger } from '../sys/sockopt.ts'

/** The descriptor behind a socket, or -1 once it is closed. */
export function socketFd(socket: Socket): number {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle
  return handle?.fd ?? -1
}

/** From here on, a close of any kind but `endInOrder` resets the connection. */
export function resetOnClose(socket: Socket): void {
  const fd = socketFd(socket)
  if (fd >= 0) setLinger(fd, 0)
}

/**
 * Sends FIN after what was written. Only once the FIN is out does a close cease to reset: killed before that, the
 * application must not take what it got for everything.
 */
export function endInOrder(socket: Socket): void {
  socket.once('finish', () => {
    const fd = socketFd(socket)
    if (fd >= 0) setLinger(fd, undefined)
  })
  socket.end()
}

/** Sends RST. */
export function reset(socket: Socket): void {
  if (!socket.destroyed) socket.resetAndDestroy()
}
