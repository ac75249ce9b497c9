/**
 * TCP connections of the calling thread's namespace, whoever has them, and their end by force: sock_diag(7),
 * `struct inet_diag_req_v2` and `inet_diag_msg` of linux/inet_diag.h.
 */
import { canonicalIp, ipFromBytes, type SocketAddress } from '../../lib/address.ts'
import {
  decodeAttributes,
  encodeMessage,
  netlinkRequest,
  NETLINK_SOCK_DIAG,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  read32,
} from './netlink.ts'
import { AF_INET, AF_INET6 } from './sockaddr.ts'
import { diagRequest, MESSAGE_BYTES, REQUEST_ID, SOCK_DIAG_BY_FAMILY } from './socket-diag.ts'

const SOCK_DESTROY = 21
/** `struct inet_diag_sockid`: ports and addresses in the network's order, device, cookie. */
const ID = { at: 4, bytes: 48, sport: 0, dport: 2, source: 4, destination: 20 } as const
const INET_DIAG_MARK = 15
/** ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: either side may still send (linux/tcp_states.h). */
const CARRYING = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 8)

export interface OpenSocket {
  readonly local: SocketAddress
  readonly remote: SocketAddress
  /** SO_MARK; 0 without one, and where the caller may not know (it needs CAP_NET_ADMIN). */
  readonly mark: number
  readonly family: number
  /** What the kernel knows it by. */
  readonly id: Uint8Array
}

/** Every connection on which bytes may still pass. Throws `SYSCALL`. Call inside `inNetns`. */
export function connectionsHere(): OpenSocket[] {
  const found: OpenSocket[] = []
  for (const family of [AF_INET, AF_INET6]) {
    const request = diagRequest(family, CARRYING)
    const message = encodeMessage(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request)
    for (const { type, body } of netlinkRequest(NETLINK_SOCK_DIAG, message, 'list connections'))
      if (type === SOCK_DIAG_BY_FAMILY && body.length >= MESSAGE_BYTES) found.push(socketOf(family, body))
  }
  return found
}

/**
 * Ends a connection for both sides: the peer gets a RST, the application an error. Throws `SYSCALL`: ENOENT when it has
 * ended by itself, EOPNOTSUPP where the kernel was built without it, EPERM without CAP_NET_ADMIN. Call inside `inNetns`.
 */
export function destroyHere({ family, id }: OpenSocket): void {
  const request = diagRequest(family, 0)
  request.set(id, REQUEST_ID.at)
  const message = encodeMessage(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, request)
  netlinkRequest(NETLINK_SOCK_DIAG, message, 'end a connection')
}

function socketOf(family: number, body: Uint8Array): OpenSocket {
  const id = body.slice(ID.at, ID.at + ID.bytes)
  const view = new DataView(id.buffer)
  const length = family === AF_INET ? 4 : 16
  const end = (port: number, address: number): SocketAddress => ({
    ip: canonicalIp(ipFromBytes(id.subarray(address, address + length))),
    port: view.getUint16(port),
  })
  return {
    local: end(ID.sport, ID.source),
    remote: end(ID.dport, ID.destination),
    mark: read32(decodeAttributes(body, MESSAGE_BYTES), INET_DIAG_MARK) ?? 0,
    family,
    id,
  }
}
