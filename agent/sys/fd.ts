/** Bare descriptors: copies of them, their end, and how many there may be. */
import { fstatSync, readFileSync, type BigIntStats } from 'node:fs'
import { constants } from 'node:os'
import { check, lastErrno, libc, syscallError } from './libc.ts'

const F_DUPFD_CLOEXEC = 1030 // linux/fcntl.h

/** Closes a descriptor. Throws `SYSCALL`, EBADF included: closing twice may hit somebody else's descriptor. */
export function closeFd(fd: number): void {
  if (libc.close(fd) === 0) return
  const errno = lastErrno()
  // Linux has let go of the descriptor by the time it says so.
  if (errno !== constants.errno.EINTR) throw syscallError(errno, `close(${fd})`)
}

/** A second descriptor of the same open file or socket, not inherited by children. Throws `SYSCALL`. */
export function dupFd(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), `dup of descriptor ${fd}`)
}

/** What `fstat` says of a descriptor. Throws Node's own error when it is closed. */
export function statFd(fd: number): BigIntStats {
  return fstatSync(fd, { bigint: true })
}

const SYS_close_range = 436 // asm-generic/unistd.h, Linux 5.9; the flag since 5.11
const CLOSE_RANGE_CLOEXEC = 4
const MAX_FD = 0x7fff_ffff

/**
 * Keeps every descriptor from 3 on from being inherited by children, but for those that a child is given on
 * purpose. Node does this at its start only for low numbers; older kernels cannot, and nothing happens.
 */
export function keepFromChildren(): void {
  libc.syscall(SYS_close_range, 3, MAX_FD, CLOSE_RANGE_CLOEXEC, 0)
}

const LOCK_EX_NB = 2 | 4 // sys/file.h: LOCK_EX | LOCK_NB

/**
 * Tries to lock an open file against other processes; the lock ends when the descriptor is closed, also by
 * the death of the process. Reports whether it was free. Throws `SYSCALL`.
 */
export function tryLockFile(fd: number): boolean {
  if (libc.flock(fd, LOCK_EX_NB) === 0) return true
  const errno = lastErrno()
  if (errno === constants.errno.EWOULDBLOCK || errno === constants.errno.EINTR) return false
  throw syscallError(errno, 'flock')
}

/** Descriptors that this process may have open (RLIMIT_NOFILE; Node raises the soft limit to the hard one). */
export function descriptorLimit(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return limit === undefined ? Infinity : Number(limit) // the kernel says "unlimited"
}
