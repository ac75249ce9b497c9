/**
 * Netlink messages: a header, a body of fixed size, then attributes (netlink(7)). Numbers are in the machine's
 * byte order, everything is aligned to 4 bytes. Everything read here comes from the kernel, but lengths are
 * checked all the same: a wrong one ends the reading of that message, never more.
 */
import { constants } from 'node:os'
import { closeFd } from './fd.ts'
import { check, lastErrno, libc, syscallError } from './libc.ts'

const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_CLOEXEC = 0o2000000
const SOCK_NONBLOCK = 0o4000
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const HEADER_BYTES = 16
const ATTRIBUTE_TYPE_MASK = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
/** The kernel answers while it is asked, so this is only ever reached when something is very wrong. */
const ANSWER_TIMEOUT_S = 2
const RECEIVE_BYTES = 64 * 1024
const MAX_READS_PER_DRAIN = 64

export const NETLINK_ROUTE = 0
export const NETLINK_SOCK_DIAG = 4
export const NETLINK_NETFILTER = 12

export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_DUMP = 0x300
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400

export interface NetlinkMessage {
  readonly type: number
  readonly body: Uint8Array
}

export interface NetlinkAttribute {
  readonly type: number
  readonly value: Uint8Array
}

/** One request. `attributes` are those of the message, in order. */
export function encodeMessage(
  type: number,
  flags: number,
  body: Uint8Array,
  attributes: readonly NetlinkAttribute[] = [],
): Uint8Array {
  const sizes = attributes.map(({ value }) => 4 + align(value.length))
  const bytes = new Uint8Array(HEADER_BYTES + align(body.length) + sizes.reduce((sum, size) => sum + size, 0))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, type, true)
  view.setUint16(6, flags, true)
  bytes.set(body, HEADER_BYTES)
  let at = HEADER_BYTES + align(body.length)
  attributes.forEach(({ type, value }, index) => {
    view.setUint16(at, 4 + value.length, true)
    view.setUint16(at + 2, type, true)
    bytes.set(value, at + 4)
    at += sizes[index]!
  })
  return bytes
}

/** The messages of one datagram. What is cut off or does not add up is left out. */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const messages: NetlinkMessage[] = []
  for (let at = 0; at + HEADER_BYTES <= bytes.length;) {
    const length = view.getUint32(at, true)
    if (length < HEADER_BYTES || at + length > bytes.length) break
    messages.push({
      type: view.getUint16(at + 4, true),
      body: bytes.subarray(at + HEADER_BYTES, at + length),
    })
    at += align(length)
  }
  return messages
}

/** The attributes behind a body of `bodyBytes`. What is cut off or does not add up is left out. */
export function decodeAttributes(message: Uint8Array, bodyBytes: number): Map<number, Uint8Array> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  const attributes = new Map<number, Uint8Array>()
  for (let at = align(bodyBytes); at + 4 <= message.length;) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > message.length) break
    attributes.set(view.getUint16(at + 2, true) & ATTRIBUTE_TYPE_MASK, message.subarray(at + 4, at + length))
    at += align(length)
  }
  return attributes
}

/**
 * Sends one request to the kernel and gives its answers, on the calling thread and in its namespace.
 * Throws `SYSCALL`, with the errno that the kernel answered; `tried` says what for.
 */
export function netlinkRequest(protocol: number, request: Uint8Array, tried: string): NetlinkMessage[] {
  const fd = openNetlink(protocol, 0, false)
  try {
    const answers: NetlinkMessage[] = []
    netlinkAnswers(fd, request, tried, Infinity, ({ type, body }) =>
      answers.push({ type, body: body.slice() }),
    )
    return answers
  } finally {
    closeFd(fd)
  }
}

/** One for all requests: they are synchronous. */
const received = new Uint8Array(RECEIVE_BYTES)

/**
 * Sends one request on a socket of `openNetlink` and hands over each answer, which is there only while it is handed
 * over: `each` keeps copies, and asks nothing. Gives the bytes that were read; beyond `maxBytes` it stops, and the socket
 * is good for nothing but to be closed. Throws `SYSCALL`, with the errno that the kernel answered.
 */
export function netlinkAnswers(
  fd: number,
  request: Uint8Array,
  tried: string,
  maxBytes: number,
  each: (message: NetlinkMessage) => void,
): number {
  check(libc.send(fd, request, request.length, 0), tried)
  for (let bytes = 0; ;) {
    const length = check(libc.recv(fd, received, received.length, 0), `${tried}: waiting for the kernel`)
    bytes += length
    if (bytes > maxBytes) return bytes
    for (const message of decodeMessages(received.subarray(0, length))) {
      if (message.type === NLMSG_DONE) return bytes
      if (message.type === NLMSG_ERROR) {
        const error = new DataView(message.body.buffer, message.body.byteOffset).getInt32(0, true)
        if (error !== 0) throw syscallError(-error, tried)
        return bytes
      }
      each(message)
    }
  }
}

/**
 * A netlink socket in the calling thread's namespace, subscribed to the groups of the bit mask `groups`
 * (bit n-1 is group n). Throws `SYSCALL`.
 */
export function openNetlink(protocol: number, groups: number, isNonBlocking: boolean): number {
  const type = SOCK_RAW | SOCK_CLOEXEC | (isNonBlocking ? SOCK_NONBLOCK : 0)
  const fd = check(libc.socket(AF_NETLINK, type, protocol), `socket(netlink ${protocol})`)
  try {
    const address = new Uint8Array(12) // struct sockaddr_nl
    const view = new DataView(address.buffer)
    view.setUint16(0, AF_NETLINK, true)
    view.setUint32(8, groups, true)
    check(
      libc.bind(fd, address, address.length),
      `bind to netlink ${protocol}, groups 0x${groups.toString(16)}`,
    )
    if (!isNonBlocking) {
      const timeout = new Uint8Array(16) // struct timeval
      new DataView(timeout.buffer).setBigInt64(0, BigInt(ANSWER_TIMEOUT_S), true)
      check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, 16), 'setsockopt(SO_RCVTIMEO)')
    }
    return fd
  } catch (err) {
    closeFd(fd)
    throw err
  }
}

/**
 * Reads what waits on a non-blocking netlink socket and hands each message over. Reports whether anything was
 * there; a queue that overflowed counts as something. Stops after a while, so that a namespace that changes
 * without end cannot hold the thread: the rest is read by the next call. Throws `SYSCALL`.
 */
export function drainNetlink(
  fd: number,
  buffer: Uint8Array,
  each: (message: NetlinkMessage) => void,
): boolean {
  let isAny = false
  for (let reads = 0; reads < MAX_READS_PER_DRAIN; reads++) {
    const length = libc.recv(fd, buffer, buffer.length, 0)
    if (length >= 0) {
      decodeMessages(buffer.subarray(0, length)).forEach(each)
    } else {
      const errno = lastErrno()
      if (errno === constants.errno.EAGAIN) return isAny
      // Some were lost; that something happened is all that matters here.
      if (errno !== constants.errno.ENOBUFS && errno !== constants.errno.EINTR)
        throw syscallError(errno, 'recv from netlink')
    }
    isAny = true
  }
  return isAny
}

/** An attribute of 32 bits. */
export function attribute32(type: number, value: number): NetlinkAttribute {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return { type, value: bytes }
}

/** The 32-bit value of an attribute, or undefined when it is absent or short. */
export function read32(attributes: ReadonlyMap<number, Uint8Array>, type: number): number | undefined {
  const value = attributes.get(type)
  if (value === undefined || value.length < 4) return undefined
  return new DataView(value.buffer, value.byteOffset).getUint32(0, true)
}

function align(length: number): number {
  return (length + 3) & ~3
}
