/** Who is at the two ends of a socket, asked of the kernel. */
import type { SocketAddress } from '../../lib/address.ts'
import { localAddress, peerAddress } from '../sys/sockopt.ts'

/** Stands for an end that is gone. */
const UNKNOWN: SocketAddress = { ip: '0.0.0.0', port: 0 }

/** Both ends, `0.0.0.0` and port 0 where one is gone. Never throws. */
export function endsOf(fd: number): { peer: SocketAddress; local: SocketAddress } {
  if (fd < 0) return { peer: UNKNOWN, local: UNKNOWN }
  return { peer: peerAddress(fd) ?? UNKNOWN, local: localAddress(fd) ?? UNKNOWN }
}
