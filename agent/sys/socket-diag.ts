/**
 * Which TCP sockets listen in the calling thread's namespace, asked of the kernel (sock_diag(7)). `/proc/net/tcp` says the
 * same, but walks the table of all connections of the machine for it, milliseconds each time.
 */
import { constants } from 'node:os'
import { CulvertError } from '../../lib/errors.ts'
import { encodeMessage, netlinkRequest, NETLINK_SOCK_DIAG, NLM_F_DUMP, NLM_F_REQUEST } from './netlink.ts'
import { AF_INET, AF_INET6 } from './sockaddr.ts'

// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY = 20
/** `struct inet_diag_req_v2`. */
const REQUEST_BYTES = 56
const REQUEST_STATES = 4
const IPPROTO_TCP = 6
const TCP_LISTEN = 10
/** `struct inet_diag_msg`: the source port is in the network's order, the inode is the last of it. */
const MESSAGE_BYTES = 72
const MESSAGE_STATE = 1
const MESSAGE_PORT = 4
const MESSAGE_INODE = 68

/** Inodes by port; undefined when this kernel cannot be asked so. Throws `SYSCALL`. Call inside `inNetns`. */
export function listeningHere(): Map<number, Set<bigint>> | undefined {
  const found = new Map<number, Set<bigint>>()
  for (const family of [AF_INET, AF_INET6]) {
    const request = new Uint8Array(REQUEST_BYTES)
    request[0] = family
    request[1] = IPPROTO_TCP
    new DataView(request.buffer).setUint32(REQUEST_STATES, 1 << TCP_LISTEN, true)
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

/** The kernel was built without it, or its module is not there. */
function isNotOffered(err: unknown): boolean {
  const cause = err instanceof CulvertError ? err.cause : undefined
  const errno = cause instanceof Error && 'errno' in cause ? cause.errno : undefined
  const { ENOENT, EOPNOTSUPP, EPROTONOSUPPORT } = constants.errno
  return errno === ENOENT || errno === EOPNOTSUPP || errno === EPROTONOSUPPORT
}
