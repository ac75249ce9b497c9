/**
 * A holder: a process that does nothing but keep the listening sockets of one pod open, so that they outlive the
 * agent. It is `sleep`, which is on every system and takes a few pages of memory, with the three sockets as its
 * descriptors 3, 4 and 5. It belongs to nobody's session and knows nothing of the pod.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { PORT } from '../ports.ts'
import { programPath, startChild } from '../sys/children.ts'
import { closeFd } from '../sys/fd.ts'
import { pidfdGetfd, pidfdKill, pidfdOpen } from '../sys/pidfd.ts'
import { netnsInode } from '../sys/netns.ts'
import { isListening, socketNetns } from '../sys/sockopt.ts'
import type { PodListeners } from '../worker/messages.ts'
import { cgroupOf, podUidOfProcess } from './cgroup.ts'
import { listeningSockets } from './listening.ts'

/** A process, told apart from a later one of the same number by when it started (proc_pid_stat(5), field 22). */
export interface Holder {
  readonly pid: number
  readonly startTime: number
}

/** 68 years; the word `infinity` is not understood everywhere. */
const FOREVER = '2147483647'
const KEYS = ['outbound', 'inbound', 'hbone'] as const
const FIRST_FD = 3
/** On a busy machine a process may be put aside for some milliseconds. */
const EXEC_MS = 50
const NEVER = new Int32Array(new SharedArrayBuffer(4))

/** Where each socket is in a holder. */
export const HOLDER_FDS: PodListeners = { outbound: FIRST_FD, inbound: FIRST_FD + 1, hbone: FIRST_FD + 2 }

export type Adoption =
  | { readonly kind: 'adopted'; readonly listeners: PodListeners }
  /** The process is gone, or it holds something else. */
  | { readonly kind: 'useless'; readonly why: string }
  /** The kernel does not let us copy its descriptors. */
  | { readonly kind: 'forbidden'; readonly why: string }

/** Starts a holder for these sockets, which stay open here as well. `onExit` is called once, when it has ended. Throws `TOOL`. */
export function startHolder(listeners: PodListeners, onExit: () => void): Holder {
  const path = programPath('sleep')
  if (path === undefined)
    throw new CulvertError(
      'TOOL',
      "'sleep' is not installed: nothing can keep a pod's listening sockets open",
      {
        hint: 'the image needs coreutils or busybox',
      },
    )
  const nothing = openSync('/dev/null', 'r+')
  try {
    const fds = [nothing, nothing, nothing, ...KEYS.map(key => listeners[key])]
    const pid = startChild({ path, argv: ['sleep', FOREVER], env: {}, fds, detached: true, onExit })
    const startTime = startTimeOf(pid)
    if (startTime !== undefined) return { pid, startTime }
  } catch (cause) {
    throw new CulvertError('TOOL', "cannot start 'sleep' to keep a pod's listening sockets open", { cause })
  } finally {
    closeSync(nothing)
  }
  throw new CulvertError('TOOL', "'sleep' ended as soon as it was started")
}

/** Reports whether the process still runs. */
export function isHolderAlive(holder: Holder): boolean {
  return startTimeOf(holder.pid) === holder.startTime
}

/** Copies the sockets out of a holder, if it is the one meant and they listen where they should. Throws `SYSCALL`. */
export function adoptFrom(holder: Holder, netnsInode: bigint): Adoption {
  const pidfd = pidfdOpen(holder.pid)
  if (pidfd === undefined) return { kind: 'useless', why: 'it is gone' }
  const copied: number[] = []
  try {
    // Checked after the process is held: its number cannot pass to another one any more.
    if (!isHolderAlive(holder)) return { kind: 'useless', why: 'it is gone' }
    for (const key of KEYS) {
      const fd = pidfdGetfd(pidfd, HOLDER_FDS[key])
      copied.push(fd)
      if (!isListening(fd, PORT[key]) || socketNetns(fd) !== netnsInode)
        return { kind: 'useless', why: `its descriptor ${HOLDER_FDS[key]} is not the pod's socket` }
    }
    const [outbound, inbound, hbone] = copied.splice(0) as [number, number, number]
    return { kind: 'adopted', listeners: { outbound, inbound, hbone } }
  } catch (err) {
    const cause = err instanceof CulvertError ? errorCode(err.cause) : undefined
    if (cause === 'EPERM') return { kind: 'forbidden', why: cause }
    if (cause === 'EBADF' || cause === 'ESRCH') return { kind: 'useless', why: cause }
    throw err
  } finally {
    copied.forEach(closeFd)
    closeFd(pidfd)
  }
}

/** Ends a holder, if it still is the process that was meant. Throws `SYSCALL`. */
export function killHolder(holder: Holder): void {
  const pidfd = pidfdOpen(holder.pid)
  if (pidfd === undefined) return
  try {
    if (isHolderAlive(holder)) pidfdKill(pidfd)
  } finally {
    closeFd(pidfd)
  }
}

/**
 * Reports whether a holder lives in the same container as we do, and so as long. Another agent's does not: it ends with
 * that agent's container, whatever we do.
 */
export function isInOurContainer(holder: Holder): boolean {
  return cgroupOf(holder.pid) === cgroupOf('self')
}

/**
 * Finds a holder that nobody has on record: the record may be lost, but the sockets would go on taking their
 * share of the pod's connections. The pod's own processes are not ours, whatever they call themselves: those are in
 * its network namespace or, where its uid is known, of its control groups.
 */
export function findHolder(netnsFd: number, podUid?: string): Holder | undefined {
  const sockets = listeningSockets(netnsFd).get(PORT.outbound)
  if (sockets === undefined) return undefined
  const links = new Set([...sockets].map(inode => `socket:[${inode}]`))
  const podNetns = netnsInode(netnsFd)
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid)) continue
    try {
      if (!links.has(readlinkSync(`/proc/${pid}/fd/${HOLDER_FDS.outbound}`))) continue
      if (statSync(`/proc/${pid}`).uid !== process.geteuid!()) continue
      if (netnsInode(`/proc/${pid}/ns/net`) === podNetns) continue
      if (podUid !== undefined && podUidOfProcess(cgroupOf(pid) ?? '') === podUid) continue
      if (commandLine(pid) !== `sleep\0${FOREVER}\0`) continue
    } catch {
      continue // gone meanwhile, or not ours to look at
    }
    const startTime = startTimeOf(pid)
    if (startTime !== undefined) return { pid, startTime }
  }
  return undefined
}

/**
 * What a process was started with, each word ended by a zero. Whoever called `posix_spawn` goes on when the new program has
 * its memory, a moment before the kernel has laid out its arguments: nothing at all is asked again for so long. Throws
 * when there is no such process.
 */
function commandLine(pid: number): string {
  for (const deadline = performance.now() + EXEC_MS; ; Atomics.wait(NEVER, 0, 0, 1)) {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'latin1')
    if (line !== '' || performance.now() > deadline) return line
  }
}

/** When a process started, in clock ticks since boot; undefined when there is none or only its remains. */
function startTimeOf(pid: number): number | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return undefined
  }
  // The name, in parentheses, may hold anything; what follows the last one is numbers, from field 3 on.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19])
}
