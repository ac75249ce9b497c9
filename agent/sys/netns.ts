/**
 * Network namespaces. A thread enters one, does something short and synchronous there, and comes back.
 *
 * What is made inside stays inside: sockets, and processes that are spawned. So are threads: nothing that may
 * start one (asynchronous file access, name look-ups, workers) belongs into `inNetns`. A thread that cannot
 * come back ends the process, because everything it did from then on would be done to somebody else's pod.
 */
import { closeSync, fstatSync, openSync, statSync } from 'node:fs'
import { CulvertError } from '../../lib/errors.ts'
import { check, errnoName, lastErrno, libc } from './libc.ts'

const CLONE_NEWNET = 0x40000000 // linux/sched.h
const NS_GET_NSTYPE = 0xb703 // linux/nsfs.h, _IO(0xb7, 3)
const SYS_UNSHARE = { x64: 272, arm64: 97 } as const // asm/unistd.h

/**
 * The node's own network namespace, as an agent in a pod of its own sees it: that of the node's first process, when the
 * agent shares the node's process numbers. To look at it takes CAP_SYS_PTRACE.
 */
export const NODE_NETNS = '/proc/1/ns/net'

/** Where this thread is: its own namespace until inside `inNetns`. Opened once per thread, never closed. */
let here: number | undefined

/**
 * Opens the network namespace at `path` (`/run/netns/…`, `/proc/PID/ns/net`). The descriptor keeps the
 * namespace alive; whoever opens it closes it. Throws `NETNS`.
 */
export function openNetns(path: string): number {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (cause) {
    throw new CulvertError('NETNS', `cannot open network namespace ${path}`, { cause })
  }
  const type = libc.ioctl(fd, NS_GET_NSTYPE, 0)
  if (type === CLONE_NEWNET) return fd
  closeSync(fd)
  throw new CulvertError('NETNS', `${path} is not a network namespace`)
}

/**
 * A network namespace that nobody else is in, with a loopback device that is down. It lives as long as the descriptor,
 * which is the caller's to close. Throws `SYSCALL`.
 */
export function newNetns(): number {
  const before = (here ??= openSync('/proc/thread-self/ns/net', 'r'))
  check(libc.syscall(SYS_UNSHARE[process.arch as 'x64' | 'arm64'], CLONE_NEWNET, 0, 0, 0), 'unshare')
  const fd = openSync('/proc/thread-self/ns/net', 'r')
  if (libc.setns(before, CLONE_NEWNET) < 0) abort()
  return fd
}

/** The inode of a namespace, given by descriptor or path: its identity while anything holds it. Throws `NETNS`. */
export function netnsInode(fdOrPath: number | string): bigint {
  try {
    const options = { bigint: true } as const
    return typeof fdOrPath === 'number' ? fstatSync(fdOrPath, options).ino : statSync(fdOrPath, options).ino
  } catch (cause) {
    throw new CulvertError('NETNS', `network namespace ${fdOrPath} is gone`, { cause })
  }
}

/**
 * Runs `work` on this thread inside the namespace and gives its result. `work` is synchronous: one that
 * returns a promise is refused, as the rest of it would run outside. May be nested. Throws `SYSCALL` when the
 * namespace cannot be entered, and whatever `work` throws.
 */
export function inNetns<T>(fd: number, work: () => T): T {
  const before = (here ??= openSync('/proc/thread-self/ns/net', 'r'))
  check(libc.setns(fd, CLONE_NEWNET), `setns to network namespace (descriptor ${fd})`)
  here = fd
  let result: T
  try {
    result = work()
  } finally {
    if (libc.setns(before, CLONE_NEWNET) < 0) abort()
    here = before
  }
  if (isThenable(result))
    throw new CulvertError(
      'NETNS',
      'work inside a network namespace must be synchronous, this gave a promise',
    )
  return result
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

function abort(): never {
  process.stderr.write(
    `culvert: cannot leave a network namespace: ${errnoName(lastErrno())}; ending the process\n`,
  )
  process.abort()
}
