/**
 * Who is at the two ends of a socket, asked of the kernel. Not Node's `remoteAddress`: that names link-local
 * addresses with an interface of the agent's namespace, and throws when the pod's has no namesake there.
 */
import type { Socket } from 'node:net'
import type { SocketAddress } from '../../lib/address.ts'
import { localAddress, peerAddress } from '../sys/sockopt.ts'
import { socketFd } from './app-socket.ts'

/** Stands for an end that is gone. */
const UNKNOWN: SocketAddress = { ip: '0.0.0.0', port: 0 }

/** Where the other side connected from; undefined once the connection is gone. Never throws. */
export function peerOf(socket: Socket): SocketAddress | undefined {
  const fd = socketFd(socket)
  return fd < 0 ? undefined : peerAddress(fd)
}

/** Both ends, `0.0.0.0` and port 0 where one is gone. Never throws. */
export function endsOf(socket: Socket): { peer: SocketAddress; local: SocketAddress } {
  const fd = socketFd(socket)
  if (fd < 0) return { peer: UNKNOWN, local: UNKNOWN }
  return { peer: peerAddress(fd) ?? UNKNOWN, local: localAddress(fd) ?? UNKNOWN }
}
