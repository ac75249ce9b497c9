/** Socket options that Node has no call for, and questions to the kernel about one socket. */
import type { SocketAddress } from '../../lib/address.ts'
import { check, lastErrno, libc, syscallError } from './libc.ts'
import { AF_INET6, decodeSockaddr, SOCKADDR_BYTES } from './sockaddr.ts'
import { constants } from 'node:os'
import { closeFd, statFd } from './fd.ts'

// asm-generic/socket.h, linux/in.h, linux/in6.h, linux/tcp.h, linux/netfilter_ipv4.h, linux/sockios.h
export const SOL_SOCKET = 1
export const SOL_IP = 0
export const SOL_TCP = 6
export const SOL_IPV6 = 41
export const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_KEEPALIVE = 9
const SO_LINGER = 13
export const SO_REUSEPORT = 15
export const SO_ACCEPTCONN = 30
export const SO_MARK = 36
export const IP_TRANSPARENT = 19
export const IP_BIND_ADDRESS_NO_PORT = 24
export const IPV6_V6ONLY = 26
export const IPV6_TRANSPARENT = 75
const SO_ORIGINAL_DST = 80 // also IP6T_SO_ORIGINAL_DST, at the level of IPv6
export const TCP_NODELAY = 1
const TCP_KEEPIDLE = 4
const TCP_KEEPINTVL = 5
const TCP_KEEPCNT = 6
const SIOCGSKNS = 0x894c
const MSG_PEEK = 0x2
const MSG_DONTWAIT = 0x40

export interface Keepalive {
  /** Silence before the first probe. */
  readonly idleSeconds: number
  readonly intervalSeconds: number
  /** Unanswered probes before the connection is given up. */
  readonly count: number
}

export const DEFAULT_KEEPALIVE: Keepalive = { idleSeconds: 180, intervalSeconds: 180, count: 9 }

// Reused: these calls are synchronous and each thread has its own copy of this module.
const address = new Uint8Array(SOCKADDR_BYTES)
const length = new Uint8Array(4)
const lengthView = new DataView(length.buffer)
const option = new Uint8Array(8) // an int, or struct linger { int l_onoff; int l_linger; }
const optionView = new DataView(option.buffer)

/** Sets an option that is an `int`. Throws `SYSCALL` naming the option. */
export function setOption(fd: number, level: number, name: number, value: number, label: string): void {
  optionView.setInt32(0, value, true)
  if (libc.setsockopt(fd, level, name, option, 4) < 0)
    throw syscallError(lastErrno(), `setsockopt(${label}, ${value})`)
}

/** Reads an option that is an `int`. Throws `SYSCALL` naming the option. */
export function getOption(fd: number, level: number, name: number, label: string): number {
  lengthView.setUint32(0, 4, true)
  check(libc.getsockopt(fd, level, name, option, length), `getsockopt(${label})`)
  return optionView.getInt32(0, true)
}

/**
 * Where a redirected connection was going before the redirection, by the kernel's connection tracking. For a
 * connection that was not redirected it is the socket's own address. Undefined when the kernel does not know
 * (tracking is off, or the socket is not an accepted TCP connection). `other`: the address of either end, if that is known.
 */
export function originalDestination(
  fd: number,
  other: SocketAddress | undefined = localAddress(fd),
): SocketAddress | undefined {
  if (other === undefined) return undefined
  // A dual-stack listener's IPv4 connections are tracked as IPv4, whatever the socket's own family.
  const level = other.ip.includes(':') ? SOL_IPV6 : SOL_IP
  lengthView.setUint32(0, level === SOL_IPV6 ? SOCKADDR_BYTES : 16, true)
  if (libc.getsockopt(fd, level, SO_ORIGINAL_DST, address, length) < 0) return undefined
  return decodeSockaddr(address, lengthView.getUint32(0, true))
}

/** The address and port that the socket is bound to. Undefined when it is not an IP socket, or is closed. */
export function localAddress(fd: number): SocketAddress | undefined {
  lengthView.setUint32(0, SOCKADDR_BYTES, true)
  if (libc.getsockname(fd, address, length) < 0) return undefined
  return decodeSockaddr(address, lengthView.getUint32(0, true))
}

/** The address and port that the socket is connected to. Undefined when it is not, any more, or is no IP socket. */
export function peerAddress(fd: number): SocketAddress | undefined {
  lengthView.setUint32(0, SOCKADDR_BYTES, true)
  if (libc.getpeername(fd, address, length) < 0) return undefined
  return decodeSockaddr(address, lengthView.getUint32(0, true))
}

/**
 * How `close` treats the connection: with `0` it resets it, and the kernel does the same when the process
 * dies; with a number it waits that many seconds for the peer; with undefined it ends it in order, in the
 * background. A socket that is already closed is left alone.
 */
export function setLinger(fd: number, seconds: number | undefined): void {
  optionView.setInt32(0, seconds === undefined ? 0 : 1, true)
  optionView.setInt32(4, seconds ?? 0, true)
  if (libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, option, 8) === 0) return
  const errno = lastErrno()
  if (errno !== constants.errno.EBADF) throw syscallError(errno, 'setsockopt(SO_LINGER)')
}

/** Turns TCP keepalive on. Set on a listening socket it holds for every connection accepted from it. */
export function setKeepalive(fd: number, keepalive: Keepalive = DEFAULT_KEEPALIVE): void {
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1, 'SO_KEEPALIVE')
  setOption(fd, SOL_TCP, TCP_KEEPIDLE, keepalive.idleSeconds, 'TCP_KEEPIDLE')
  setOption(fd, SOL_TCP, TCP_KEEPINTVL, keepalive.intervalSeconds, 'TCP_KEEPINTVL')
  setOption(fd, SOL_TCP, TCP_KEEPCNT, keepalive.count, 'TCP_KEEPCNT')
}

/** The error that the socket has met and not told yet, as an errno; 0 for none. The question takes it off the socket. */
export function socketError(fd: number): number {
  lengthView.setUint32(0, 4, true)
  if (libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, address, length) < 0) return lastErrno()
  return address[0]! | (address[1]! << 8)
}

/** Reports whether the other end has ended, and nothing that it sent is left to be read. */
export function isAtEnd(fd: number): boolean {
  return libc.recv(fd, option, 1, MSG_PEEK | MSG_DONTWAIT) === 0
}

/** The inode that `/proc/PID/fd` and `/proc/net/tcp` call this socket by. */
export function socketInode(fd: number): bigint {
  return statFd(fd).ino
}

/** The inode of the network namespace that the socket lives in (`netnsInode` of it). Throws `SYSCALL`. */
export function socketNetns(fd: number): bigint {
  const netns = check(libc.ioctl(fd, SIOCGSKNS, 0), 'ioctl(SIOCGSKNS)')
  try {
    return statFd(netns).ino
  } finally {
    closeFd(netns)
  }
}

/** Reports whether the descriptor is a TCP socket that listens on this port. */
export function isListening(fd: number, port: number): boolean {
  try {
    return getOption(fd, SOL_SOCKET, SO_ACCEPTCONN, 'SO_ACCEPTCONN') === 1 && localAddress(fd)?.port === port
  } catch {
    return false // not a socket at all
  }
}

/** Reports whether the socket takes IPv6 as well as IPv4. */
export function isDualStack(fd: number): boolean {
  lengthView.setUint32(0, SOCKADDR_BYTES, true)
  if (libc.getsockname(fd, address, length) < 0) return false
  return new DataView(address.buffer).getUint16(0, true) === AF_INET6
}
