/**
 * Another process, held by a descriptor instead of a number that may be reused: its sockets can be copied
 * from it (pidfd_getfd(2), Linux 5.6, which asks for the right to trace it) and it can be ended.
 */
import { constants } from 'node:os'
import { check, lastErrno, libc, syscallError } from './libc.ts'

// asm-generic/unistd.h: the same numbers on x64 and arm64.
const SYS_pidfd_send_signal = 424
const SYS_pidfd_open = 434
const SYS_pidfd_getfd = 438

/** A descriptor of the process, or undefined when there is none of that number. Throws `SYSCALL`. */
export function pidfdOpen(pid: number): number | undefined {
  const fd = libc.syscall(SYS_pidfd_open, pid, 0, 0, 0)
  if (fd >= 0) return fd
  const errno = lastErrno()
  if (errno === constants.errno.ESRCH || errno === constants.errno.EINVAL) return undefined
  throw syscallError(errno, `pidfd_open(${pid})`)
}

/** A copy, in this process, of the descriptor `fd` of the other one; not inherited by children. Throws `SYSCALL`. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return check(libc.syscall(SYS_pidfd_getfd, pidfd, fd, 0, 0), `pidfd_getfd(descriptor ${fd})`)
}

/** Ends the process at once. Reports whether it was still there. Throws `SYSCALL`. */
export function pidfdKill(pidfd: number): boolean {
  if (libc.syscall(SYS_pidfd_send_signal, pidfd, constants.signals.SIGKILL, 0, 0) === 0) return true
  const errno = lastErrno()
  if (errno === constants.errno.ESRCH) return false
  throw syscallError(errno, 'pidfd_send_signal(SIGKILL)')
}
