/**
 * The C library, by FFI: this file and `openssl.ts` are the only ones that import koffi. A wrong prototype here
 * crashes the process, so the list is short, uses only integers and byte buffers (structs are laid out by the
 * callers, in the kernel's own byte order), and every prototype is called by a test. Linux on x64 and arm64, both
 * little-endian and 64-bit. A call costs a quarter of a microsecond.
 */
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import koffi from 'koffi'
import { CulvertError } from '../../lib/errors.ts'

type Bytes = Uint8Array

// null: the symbols of the running process, so that glibc and musl need no names of their own.
const self = koffi.load(null)

/** A function that not every C library has. */
function optional(prototype: string): unknown {
  try {
    return self.func(prototype)
  } catch {
    return undefined
  }
}

export const libc = {
  setns: self.func('int setns(int, int)') as (fd: number, type: number) => number,
  socket: self.func('int socket(int, int, int)') as (
    family: number,
    type: number,
    protocol: number,
  ) => number,
  bind: self.func('int bind(int, const void *, uint32_t)') as (
    fd: number,
    address: Bytes,
    length: number,
  ) => number,
  listen: self.func('int listen(int, int)') as (fd: number, backlog: number) => number,
  accept4: self.func('int accept4(int, void *, void *, int)') as (
    fd: number,
    address: Bytes | null,
    length: Bytes | null,
    flags: number,
  ) => number,
  connect: self.func('int connect(int, const void *, uint32_t)') as (
    fd: number,
    address: Bytes,
    length: number,
  ) => number,
  shutdown: self.func('int shutdown(int, int)') as (fd: number, how: number) => number,
  setsockopt: self.func('int setsockopt(int, int, int, const void *, uint32_t)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes,
    length: number,
  ) => number,
  getsockopt: self.func('int getsockopt(int, int, int, void *, void *)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes,
    length: Bytes,
  ) => number,
  getsockname: self.func('int getsockname(int, void *, void *)') as (
    fd: number,
    address: Bytes,
    length: Bytes,
  ) => number,
  getpeername: self.func('int getpeername(int, void *, void *)') as (
    fd: number,
    address: Bytes,
    length: Bytes,
  ) => number,
  send: self.func('int64_t send(int, const void *, uint64_t, int)') as (
    fd: number,
    data: Bytes,
    length: number,
    flags: number,
  ) => number,
  recv: self.func('int64_t recv(int, void *, uint64_t, int)') as (
    fd: number,
    data: Bytes,
    length: number,
    flags: number,
  ) => number,
  fcntl: self.func('int fcntl(int, int, int64_t)') as (
    fd: number,
    command: number,
    argument: number,
  ) => number,
  ioctl: self.func('int ioctl(int, uint64_t, int64_t)') as (
    fd: number,
    request: number,
    argument: number,
  ) => number,
  flock: self.func('int flock(int, int)') as (fd: number, operation: number) => number,
  close: self.func('int close(int)') as (fd: number) => number,
  epollCreate: self.func('int epoll_create1(int)') as (flags: number) => number,
  epollCtl: self.func('int epoll_ctl(int, int, int, void *)') as (
    fd: number,
    operation: number,
    target: number,
    event: Bytes,
  ) => number,
  epollWait: self.func('int epoll_wait(int, void *, int, int)') as (
    fd: number,
    events: Bytes,
    count: number,
    timeoutMs: number,
  ) => number,
  pipe2: self.func('int pipe2(void *, int)') as (fds: Bytes, flags: number) => number,
  memfdCreate: self.func('int memfd_create(const char *, uint32_t)') as (
    name: string,
    flags: number,
  ) => number,
  kill: self.func('int kill(int, int)') as (pid: number, signal: number) => number,
  waitpid: self.func('int waitpid(int, void *, int)') as (
    pid: number,
    status: Bytes,
    options: number,
  ) => number,
  waitid: self.func('int waitid(int, uint32_t, void *, int)') as (
    kind: number,
    id: number,
    info: Bytes,
    options: number,
  ) => number,
  /** Gives an errno itself, as all of its family do. The lists end with null. */
  posixSpawn: self.func(
    'int posix_spawn(void *, const char *, const void *, const void *, const char **, const char **)',
  ) as (
    pid: Bytes,
    path: string,
    actions: Bytes,
    attributes: Bytes,
    argv: readonly (string | null)[],
    env: readonly (string | null)[],
  ) => number,
  spawnActionsInit: self.func('int posix_spawn_file_actions_init(void *)') as (actions: Bytes) => number,
  spawnActionsDestroy: self.func('int posix_spawn_file_actions_destroy(void *)') as (
    actions: Bytes,
  ) => number,
  spawnActionsDup2: self.func('int posix_spawn_file_actions_adddup2(void *, int, int)') as (
    actions: Bytes,
    from: number,
    to: number,
  ) => number,
  /** glibc 2.29, musl 1.1.24. */
  spawnActionsChdir: optional('int posix_spawn_file_actions_addchdir_np(void *, const char *)') as
    ((actions: Bytes, path: string) => number) | undefined,
  spawnAttributesInit: self.func('int posix_spawnattr_init(void *)') as (attributes: Bytes) => number,
  spawnAttributesFlags: self.func('int posix_spawnattr_setflags(void *, int16_t)') as (
    attributes: Bytes,
    flags: number,
  ) => number,
  spawnAttributesDefaultSignals: self.func('int posix_spawnattr_setsigdefault(void *, const void *)') as (
    attributes: Bytes,
    signals: Bytes,
  ) => number,
  spawnAttributesBlockedSignals: self.func('int posix_spawnattr_setsigmask(void *, const void *)') as (
    attributes: Bytes,
    signals: Bytes,
  ) => number,
  madvise: self.func('int madvise(uint64_t, uint64_t, int)') as (
    address: number,
    length: number,
    advice: number,
  ) => number,
  /** glibc only. */
  mallocTrim: optional('int malloc_trim(uint64_t)') as ((keep: number) => number) | undefined,
  /** For calls that older C libraries have no function for. */
  syscall: self.func('int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t)') as (
    number: number,
    a: number,
    b: number,
    c: number,
    d: number,
  ) => number,
}

/** Each call of `getSystemErrorMap` makes a new map. */
const ERRNOS: ReadonlyMap<number, [name: string, meaning: string]> = getSystemErrorMap()

/** The kernel's number of the last failure on this thread. Only right directly after a call has returned -1. */
export function lastErrno(): number {
  return koffi.errno()
}

/** The name of an errno, `EPERM`. */
export function errnoName(errno: number): string {
  return ERRNOS.get(-errno)?.[0] ?? `errno ${errno}`
}

/** What a failed call throws: `SYSCALL` with the errno's name, its meaning and what was tried. */
export function syscallError(errno: number, tried: string): CulvertError {
  const meaning = ERRNOS.get(-errno)?.[1]
  const text = meaning === undefined ? errnoName(errno) : `${errnoName(errno)} (${meaning})`
  const hint =
    errno === constants.errno.EPERM
      ? 'run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN over the namespace'
      : undefined
  return new CulvertError('SYSCALL', `${tried}: ${text}`, {
    cause: Object.assign(new Error(errnoName(errno)), { code: errnoName(errno), errno }),
    ...(hint === undefined ? {} : { hint }),
  })
}

/** Gives a call's result back, or throws `SYSCALL` when it is negative. `tried` says what was tried, with what. */
export function check(result: number, tried: string): number {
  if (result >= 0) return result
  throw syscallError(lastErrno(), tried)
}

/** Four bytes, as the kernel reads an `int`. */
export function int32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}
