/**
 * Programs that this process starts: by posix_spawn(3), which shares the memory with the child until it is the other
 * program. Node's own way copies the page tables of the whole process for each child: milliseconds in which the thread
 * stands still, and after which every thread pays for the first write to each page. And its way to learn of ends asks
 * after every child at each end of one: with a child per pod that is a square.
 *
 * Main thread only, as signals are. A child is born in the network namespace that the thread is in.
 */
import { accessSync, constants as modes } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'
import { closeFd, keepFromChildren } from './fd.ts'
import { check, lastErrno, libc, syscallError } from './libc.ts'

// spawn.h, the same in glibc and musl
const POSIX_SPAWN_SETSIGDEF = 0x04
const POSIX_SPAWN_SETSIGMASK = 0x08
const POSIX_SPAWN_SETSID = 0x80
/** More than either library's `posix_spawn_file_actions_t` (80) and `posix_spawnattr_t` (336). */
const OPAQUE_BYTES = 512
const SIGSET_BYTES = 128
// sys/wait.h
const P_ALL = 0
const WNOHANG = 1
const WEXITED = 4
const WNOWAIT = 0x0100_0000
const SIGINFO_BYTES = 128
const SIGINFO_PID = 16 // where both architectures have aligned the union
const O_CLOEXEC = 0o2000000
const MFD_CLOEXEC = 1
const F_DUPFD_CLOEXEC = 1030

export interface ChildOptions {
  /** Absolute: nothing is searched. */
  readonly path: string
  /** Its name for itself first. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** The child's descriptors from 0 on, and no others. They stay open here. */
  readonly fds: readonly number[]
  /** In a session of its own, at `/`: for what outlives this process. @default false */
  readonly detached?: boolean
  /** Called once, when it has ended: its exit status, or the negative number of the signal that ended it. */
  readonly onExit: (status: number) => void
}

/** Children that have not ended, by process number. */
const children = new Map<number, (status: number) => void>()

/** Starts a program and gives its process number. A child does not keep this process from ending. Throws `SYSCALL`. */
export function startChild(options: ChildOptions): number {
  const { path, argv, env, fds, detached = false, onExit } = options
  keepFromChildren()
  if (children.size === 0) process.on('SIGCHLD', reap) // before there is one to end
  const pid = new Uint8Array(4)
  const actions = new Uint8Array(OPAQUE_BYTES)
  libc.spawnActionsInit(actions)
  // Above all that the child gets, so that none is overwritten before it was copied.
  const copies = fds.map(fd => check(libc.fcntl(fd, F_DUPFD_CLOEXEC, fds.length + 1), `dup of ${fd}`))
  try {
    copies.forEach((fd, at) => libc.spawnActionsDup2(actions, fd, at))
    if (detached) libc.spawnActionsChdir?.(actions, '/')
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    const errno = libc.posixSpawn(
      pid,
      path,
      actions,
      attributes(detached),
      [...argv, null],
      [...variables, null],
    )
    if (errno !== 0) throw syscallError(errno, `start ${path}`)
    const number = new DataView(pid.buffer).getInt32(0, true)
    children.set(number, onExit)
    return number
  } finally {
    libc.spawnActionsDestroy(actions)
    copies.forEach(closeFd)
    if (children.size === 0) process.off('SIGCHLD', reap)
  }
}

/** Where programs are beside what PATH says. */
const SEARCHED = '/usr/sbin:/sbin:/usr/bin:/bin'
const found = new Map<string, string>()

/** The path of a program, looked up once; undefined when there is none that may be run. */
export function programPath(name: string): string | undefined {
  const known = found.get(name)
  if (known !== undefined) return known
  for (const directory of `${process.env['PATH'] ?? ''}:${SEARCHED}`.split(':')) {
    const path = join(directory, name)
    if (!path.startsWith('/') || !isRunnable(path)) continue
    found.set(name, path)
    return path
  }
  return undefined
}

function isRunnable(path: string): boolean {
  try {
    accessSync(path, modes.X_OK)
    return true
  } catch {
    return false
  }
}

/** Signals a child, unless it has ended: its number is its own until its end was told. Throws `SYSCALL`. */
export function signalChild(pid: number, signal: NodeJS.Signals): void {
  if (children.has(pid)) check(libc.kill(pid, constants.signals[signal]), `signal process ${pid}`)
}

/** Two ends of a pipe, not inherited. Throws `SYSCALL`. */
export function openPipe(): { readonly read: number; readonly write: number } {
  const fds = new Uint8Array(8)
  check(libc.pipe2(fds, O_CLOEXEC), 'pipe')
  const view = new DataView(fds.buffer)
  return { read: view.getInt32(0, true), write: view.getInt32(4, true) }
}

/** An empty file in memory, not inherited; whoever opens it closes it. Throws `SYSCALL`. */
export function openMemoryFile(name: string): number {
  return check(libc.memfdCreate(name, MFD_CLOEXEC), 'memfd_create')
}

/** Signals as for any program: none blocked, none ignored, whatever this process does with its own. */
function attributes(detached: boolean): Uint8Array {
  const bytes = new Uint8Array(OPAQUE_BYTES)
  libc.spawnAttributesInit(bytes)
  libc.spawnAttributesDefaultSignals(bytes, new Uint8Array(SIGSET_BYTES).fill(0xff))
  libc.spawnAttributesBlockedSignals(bytes, new Uint8Array(SIGSET_BYTES))
  const session = detached ? POSIX_SPAWN_SETSID : 0
  libc.spawnAttributesFlags(bytes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | session)
  return bytes
}

/** Takes note of every child of ours that has ended. */
function reap(): void {
  for (;;) {
    const pid = endedChild()
    if (pid === 0) return
    if (children.has(pid)) collect(pid)
    else {
      // Somebody else's, who will take it; until then it stands before ours.
      for (const ours of children.keys()) collect(ours)
      return
    }
  }
}

/** The number of some child that has ended and was not taken yet; 0 when there is none. */
function endedChild(): number {
  const info = new Uint8Array(SIGINFO_BYTES)
  if (libc.waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT) < 0) {
    if (lastErrno() === constants.errno.ECHILD) return 0
    throw new CulvertError('SYSCALL', 'cannot ask which programs have ended')
  }
  return new DataView(info.buffer).getInt32(SIGINFO_PID, true)
}

function collect(pid: number): void {
  const status = new Uint8Array(4)
  if (libc.waitpid(pid, status, WNOHANG) === 0) return
  const onExit = children.get(pid)!
  children.delete(pid)
  if (children.size === 0) process.off('SIGCHLD', reap)
  const word = new DataView(status.buffer).getInt32(0, true)
  const signal = word & 0x7f
  onExit(signal === 0 ? (word >> 8) & 0xff : -signal)
}
