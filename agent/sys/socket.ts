/**
 * TCP sockets that must be right before Node sees them: marked before their first packet leaves, bound inside
 * a pod's namespace, bound to an address that is not ours. Call both inside `inNetns`, then hand the
 * descriptor over: `server.listen({ fd, backlog })`, `new net.Socket({ fd, allowHalfOpen: true }).connect(…)`.
 */
import { constants } from 'node:os'
import { bytesFromIp } from '../../lib/address.ts'
import { CulvertError } from '../../lib/errors.ts'
import { closeFd } from './fd.ts'
import { check, libc } from './libc.ts'
import { AF_INET, AF_INET6, encodeSockaddr } from './sockaddr.ts'
import {
  DEFAULT_KEEPALIVE,
  IP_BIND_ADDRESS_NO_PORT,
  IP_TRANSPARENT,
  IPV6_TRANSPARENT,
  IPV6_V6ONLY,
  setKeepalive,
  setOption,
  SO_MARK,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  SOL_TCP,
  TCP_NODELAY,
  type Keepalive,
} from './sockopt.ts'

export { closeFd, dupFd } from './fd.ts'

const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SOCK_NONBLOCK = 0o4000

/** Waiting connections a listener may hold; the kernel cuts it to net.core.somaxconn of the namespace. */
export const DEFAULT_BACKLOG = 4096

export interface ListenOptions {
  /** 0 lets the kernel choose. */
  readonly port: number
  /** @default DEFAULT_BACKLOG */
  readonly backlog?: number | undefined
  /** SO_MARK, which accepted connections inherit. */
  readonly mark?: number | undefined
  readonly reusePort?: boolean | undefined
  /** IP_TRANSPARENT, which accepted connections inherit. */
  readonly transparent?: boolean | undefined
  /** Whether to take IPv6 too. @default as far as the namespace has it */
  readonly ipv6?: boolean | undefined
  /** Inherited by accepted connections. @default DEFAULT_KEEPALIVE */
  readonly keepalive?: Keepalive | undefined
}

/**
 * A listening socket on every address of the calling thread's namespace: on `[::]` for both families, or on
 * `0.0.0.0` where there is no IPv6. Non-blocking, not inherited by children, Nagle off. Throws `SYSCALL`.
 */
export function listenTcp(options: ListenOptions): number {
  if (options.ipv6 === false) return listenOn(AF_INET, options)
  try {
    return listenOn(AF_INET6, options)
  } catch (err) {
    if (options.ipv6 === true || !isWithoutIpv6(err)) throw err
    return listenOn(AF_INET, options)
  }
}

function listenOn(family: number, options: ListenOptions): number {
  const fd = openTcp(family, options.mark)
  try {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, 'SO_REUSEADDR')
    if (options.reusePort) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT')
    if (family === AF_INET6) setOption(fd, SOL_IPV6, IPV6_V6ONLY, 0, 'IPV6_V6ONLY')
    if (options.transparent) setTransparent(fd, family)
    setKeepalive(fd, options.keepalive ?? DEFAULT_KEEPALIVE)
    const address = encodeSockaddr(family === AF_INET6 ? '::' : '0.0.0.0', options.port)
    check(libc.bind(fd, address, address.length), `bind to port ${options.port}`)
    check(libc.listen(fd, options.backlog ?? DEFAULT_BACKLOG), `listen on port ${options.port}`)
    return fd
  } catch (err) {
    closeFd(fd)
    throw err
  }
}

export interface ConnectOptions {
  readonly family: 4 | 6
  /** SO_MARK; 0 for none. */
  readonly mark: number
  /** Connect from this address, whoever's it is; the port is the kernel's choice at connect. */
  readonly sourceIp?: string | undefined
  /** `none`: where the other end is on this machine. @default DEFAULT_KEEPALIVE */
  readonly keepalive?: Keepalive | 'none' | undefined
}

/**
 * A TCP socket, not yet connected, in the calling thread's namespace. Non-blocking, not inherited by
 * children, Nagle off. Throws `SYSCALL`, and `ADDRESS` when `sourceIp` is not of the family.
 */
export function connectSocket(options: ConnectOptions): number {
  const family = options.family === 6 ? AF_INET6 : AF_INET
  const { sourceIp } = options
  if (sourceIp !== undefined && bytesFromIp(sourceIp).length !== (options.family === 6 ? 16 : 4))
    throw new CulvertError('ADDRESS', `source address ${sourceIp} is not IPv${options.family}`)
  const fd = openTcp(family, options.mark)
  try {
    if (options.keepalive !== 'none') setKeepalive(fd, options.keepalive ?? DEFAULT_KEEPALIVE)
    if (sourceIp !== undefined) {
      setTransparent(fd, family)
      // The port is chosen at connect, by the whole four-tuple: otherwise one address would run out of ports.
      setOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1, 'IP_BIND_ADDRESS_NO_PORT')
      const address = encodeSockaddr(sourceIp, 0)
      check(libc.bind(fd, address, address.length), `bind to source address ${sourceIp}`)
    }
    return fd
  } catch (err) {
    closeFd(fd)
    throw err
  }
}

function openTcp(family: number, mark: number | undefined): number {
  const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK
  const fd = check(libc.socket(family, type, 0), `socket(${family === AF_INET6 ? 'IPv6' : 'IPv4'} TCP)`)
  try {
    if (mark) setOption(fd, SOL_SOCKET, SO_MARK, mark, 'SO_MARK')
    setOption(fd, SOL_TCP, TCP_NODELAY, 1, 'TCP_NODELAY')
    return fd
  } catch (err) {
    closeFd(fd)
    throw err
  }
}

function setTransparent(fd: number, family: number): void {
  if (family === AF_INET6) setOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1, 'IPV6_TRANSPARENT')
  else setOption(fd, SOL_IP, IP_TRANSPARENT, 1, 'IP_TRANSPARENT')
}

function isWithoutIpv6(err: unknown): boolean {
  const errno =
    err instanceof CulvertError && err.cause instanceof Error && 'errno' in err.cause
      ? err.cause.errno
      : undefined
  return errno === constants.errno.EAFNOSUPPORT || errno === constants.errno.EADDRNOTAVAIL
}
