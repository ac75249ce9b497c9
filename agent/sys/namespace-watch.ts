/**
 * Hears of changes to the packet rules and the policy routing of many namespaces: the kernel announces both on
 * netlink inside the namespace, and calls with SIGIO that it has (fcntl(2), O_ASYNC), so that nobody has to ask again
 * and again. All the sockets hang on one epoll descriptor, so that asking "what is new?" is one system call, however
 * many namespaces are watched. Changes made with the legacy iptables are not announced by the kernel.
 *
 * Main thread only, as signals are.
 */
import { Epoll, EPOLLIN } from './epoll.ts'
import { closeFd } from './fd.ts'
import {
  decodeAttributes,
  drainNetlink,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  openNetlink,
  type NetlinkMessage,
} from './netlink.ts'
import { check, libc } from './libc.ts'
import { inNetns } from './netns.ts'

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NFNLGRP_NFTABLES = 7
const NFT_MSG_NEWGEN = (10 << 8) | 15
const NFTA_GEN_PROC_PID = 2
const NFTA_GEN_PROC_NAME = 3
const NFGENMSG_BYTES = 4
// linux/rtnetlink.h
const RTNLGRP_IPV4_ROUTE = 7
const RTNLGRP_IPV4_RULE = 8
const RTNLGRP_IPV6_ROUTE = 11
const RTNLGRP_IPV6_RULE = 19

// asm-generic/fcntl.h
const F_SETFL = 4
const F_SETOWN = 8
const O_NONBLOCK = 0o4000
const O_ASYNC = 0o20000

const EVENTS_PER_POLL = 64

const group = (number: number) => 1 << (number - 1)

export interface NamespaceChange {
  readonly key: string
  /** The programs that the kernel named as the authors, `iptables (pid 42)`. Routing changes name none. */
  readonly by: readonly string[]
}

export class NamespaceWatch {
  readonly #epoll = new Epoll(EVENTS_PER_POLL)
  readonly #sockets = new Map<string, number[]>()
  readonly #keys = new Map<number, string>()
  readonly #buffer = new Uint8Array(64 * 1024)
  readonly #onNews: () => void
  #isClosed = false

  /**
   * `onNews` is called when there may be something to `poll` for: once for many changes, and sometimes for none. Throws
   * `SYSCALL`.
   */
  constructor(onNews: () => void) {
    this.#onNews = onNews
    process.on('SIGIO', onNews) // before there is a socket: it would end the process
  }

  /** Starts to watch a namespace under a key of the caller's; a key that is watched already is replaced. Throws `SYSCALL`. */
  add(key: string, netnsFd: number): void {
    this.remove(key)
    const routing =
      group(RTNLGRP_IPV4_ROUTE) |
      group(RTNLGRP_IPV4_RULE) |
      group(RTNLGRP_IPV6_ROUTE) |
      group(RTNLGRP_IPV6_RULE)
    const sockets: number[] = []
    this.#sockets.set(key, sockets)
    try {
      inNetns(netnsFd, () => {
        sockets.push(openNetlink(NETLINK_NETFILTER, group(NFNLGRP_NFTABLES), true))
        sockets.push(openNetlink(NETLINK_ROUTE, routing, true))
      })
      for (const socket of sockets) {
        callWith(socket)
        this.#epoll.add(socket, EPOLLIN)
        this.#keys.set(socket, key)
      }
    } catch (err) {
      this.remove(key)
      throw err
    }
  }

  remove(key: string): void {
    for (const socket of this.#sockets.get(key) ?? []) {
      this.#keys.delete(socket)
      closeFd(socket) // which takes it off the epoll descriptor, too
    }
    this.#sockets.delete(key)
  }

  /**
   * What changed since the last call; does not wait. What changes without end is read only in part: call again until
   * nothing is new. Throws `SYSCALL`.
   */
  poll(): NamespaceChange[] {
    const count = this.#epoll.wait(0)
    if (count === 0) return []
    const changes = new Map<string, Set<string>>()
    for (let at = 0; at < count; at++) {
      const socket = this.#epoll.fdAt(at)
      const key = this.#keys.get(socket)
      if (key === undefined) continue
      const by = changes.get(key) ?? new Set<string>()
      changes.set(key, by)
      drainNetlink(socket, this.#buffer, message => {
        const author = authorOf(message)
        if (author !== undefined) by.add(author)
      })
    }
    return [...changes].map(([key, by]) => ({ key, by: [...by] }))
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const key of this.#sockets.keys()) this.remove(key)
    this.#epoll.close()
    process.off('SIGIO', this.#onNews)
  }
}

/** The kernel sends this process SIGIO whenever something comes. */
function callWith(socket: number): void {
  check(libc.fcntl(socket, F_SETOWN, process.pid), 'fcntl(F_SETOWN)')
  check(libc.fcntl(socket, F_SETFL, O_NONBLOCK | O_ASYNC), 'fcntl(O_ASYNC)')
}

/** The kernel ends each batch of changes with a message that names the process which made it. */
function authorOf(message: NetlinkMessage): string | undefined {
  if (message.type !== NFT_MSG_NEWGEN) return undefined
  const attributes = decodeAttributes(message.body, NFGENMSG_BYTES)
  const pid = attributes.get(NFTA_GEN_PROC_PID)
  const name = attributes.get(NFTA_GEN_PROC_NAME)
  if (pid === undefined || pid.length < 4 || name === undefined) return undefined
  const number = new DataView(pid.buffer, pid.byteOffset).getUint32(0)
  return `${Buffer.from(name).toString('latin1').replace(/\0.*$/s, '')} (pid ${number})`
}
