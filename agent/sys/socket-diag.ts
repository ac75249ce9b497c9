/**
 * TCP sockets of the calling thread's namespace, asked of the kernel (sock_diag(7)): which listen, and which one a
 * connection is. `/proc/net/tcp` says the same, but walks the table of all connections of the machine for it,
 * milliseconds each time.
 */
import { constants } from 'node:os'
import { bytesFromIp, type SocketAddress } from '../../lib/address.ts'
import { CulvertError } from '../../lib/errors.ts'
import {
  encodeMessage,
  netlinkRequest,
  NETLINK_SOCK_DIAG,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
} from './netlink.ts'
import { AF_INET, AF_INET6 } from './sockaddr.ts'

// linux/sock_diag.h, linux/inet_diag.h
export const SOCK_DIAG_BY_FAMILY = 20
/** `struct inet_diag_req_v2`. */
const REQUEST_BYTES = 56
const REQUEST_STATES = 4
/** `struct inet_diag_sockid` in it: ports in the network's order, addresses of 16 bytes each, device, cookie. */
export const REQUEST_ID = { at: 8, sport: 8, dport: 10, source: 12, destination: 28, cookie: 48 } as const
const NO_COOKIE = 0xffff_ffff
const ANY_STATE = 0xffff_ffff
const IPPROTO_TCP = 6
const TCP_LISTEN = 10
/** `struct inet_diag_msg`: the source port is in the network's order, the inode is the last of it. */
export const MESSAGE_BYTES = 72
const MESSAGE_STATE = 1
const MESSAGE_PORT = 4
const MESSAGE_INODE = 68

/** A request for TCP sockets of a family, in any of the states of the mask (bit n is state n of linux/tcp_states.h). */
export function diagRequest(family: number, states: number): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(REQUEST_BYTES)
  request[0] = family
  request[1] = IPPROTO_TCP
  new DataView(request.buffer).setUint32(REQUEST_STATES, states, true)
  return request
}

/** Inodes by port; undefined when this kernel cannot be asked so. Throws `SYSCALL`. Call inside `inNetns`. */
export function listeningHere(): Map<number, Set<bigint>> | undefined {
  const found = new Map<number, Set<bigint>>()
  for (const family of [AF_INET, AF_INET6]) {
    const request = diagRequest(family, 1 << TCP_LISTEN)
    const message = encodeMessage(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request)
    try {
      for (const { type, body } of netlinkRequest(NETLINK_SOCK_DIAG, message, 'list listening sockets')) {
        if (type !== SOCK_DIAG_BY_FAMILY || body.length < MESSAGE_BYTES || body[MESSAGE_STATE] !== TCP_LISTEN)
          continue
        const view = new DataView(body.buffer, body.byteOffset, body.length)
        const port = view.getUint16(MESSAGE_PORT)
        const inodes = found.get(port) ?? new Set()
        found.set(port, inodes.add(BigInt(view.getUint32(MESSAGE_INODE, true))))
      }
    } catch (err) {
      if (isNotOffered(err)) return undefined
      throw err
    }
  }
  return found
}

/**
 * The inode of the socket at the `from` end of a connection; 0 when nobody has it open any more, undefined when there is no
 * such socket here. Throws `SYSCALL`. Call inside `inNetns`.
 */
export function connectionInode(from: SocketAddress, to: SocketAddress): bigint | undefined {
  const [source, destination] = [bytesFromIp(from.ip), bytesFromIp(to.ip)]
  const request = diagRequest(source.length === 4 ? AF_INET : AF_INET6, ANY_STATE)
  const view = new DataView(request.buffer)
  view.setUint16(REQUEST_ID.sport, from.port)
  view.setUint16(REQUEST_ID.dport, to.port)
  request.set(source, REQUEST_ID.source)
  request.set(destination, REQUEST_ID.destination)
  view.setUint32(REQUEST_ID.cookie, NO_COOKIE, true)
  view.setUint32(REQUEST_ID.cookie + 4, NO_COOKIE, true)
  const message = encodeMessage(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_ACK, request)
  try {
    for (const { type, body } of netlinkRequest(NETLINK_SOCK_DIAG, message, 'look up a connection')) {
      // Without a connection the kernel gives who listens at its local end.
      if (type !== SOCK_DIAG_BY_FAMILY || body.length < MESSAGE_BYTES || body[MESSAGE_STATE] === TCP_LISTEN)
        continue
      return BigInt(new DataView(body.buffer, body.byteOffset).getUint32(MESSAGE_INODE, true))
    }
  } catch (err) {
    if (isNotOffered(err)) return undefined // ENOENT also says that there is no such connection
    throw err
  }
  return undefined
}

/** The kernel was built without it, or its module is not there. */
function isNotOffered(err: unknown): boolean {
  const cause = err instanceof CulvertError ? err.cause : undefined
  const errno = cause instanceof Error && 'errno' in cause ? cause.errno : undefined
  const { ENOENT, EOPNOTSUPP, EPROTONOSUPPORT } = constants.errno
  return errno === ENOENT || errno === EOPNOTSUPP || errno === EPROTONOSUPPORT
}
