/**
 * Processes by number, and whether a number still means the same process: a start time goes with each, because
 * the kernel gives numbers out again. Nothing here ever signals by name.
 */
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode } from '../lib/errors.ts'
import { readIfThere } from './files.ts'

export interface ProcessRef {
  readonly pid: number
  /** Clock ticks since boot: field 22 of proc_pid_stat(5). */
  readonly startTime: number
}

/** Which process a number means now, or undefined when it is none or only waits to be reaped. */
export function processRef(pid: number): ProcessRef | undefined {
  const stat = readStat(pid)
  if (!stat || stat.state === 'Z' || stat.state === 'X') return undefined
  return { pid, startTime: stat.startTime }
}

export function isAlive(ref: ProcessRef): boolean {
  return processRef(ref.pid)?.startTime === ref.startTime
}

/** Sends a signal if the process is still the one meant; reports whether it was. */
export function signalProcess(ref: ProcessRef, signal: NodeJS.Signals): boolean {
  if (!isAlive(ref)) return false
  return signalPid(ref.pid, signal)
}

/** Sends a signal to a process, or to a group when the number is negative; reports whether it was there. */
export function signalPid(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (err) {
    if (errorCode(err) === 'ESRCH') return false
    throw err
  }
}

/** Waits until the process is gone, at most so long. Reports whether it is. */
export async function waitGone(ref: ProcessRef, timeoutMs: number): Promise<boolean> {
  // A process that is not our child cannot be waited for, only looked at.
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline; await sleep(10))
    if (!isAlive(ref)) return true
  return !isAlive(ref)
}

/** All processes that live in one of the namespaces (inode numbers of /proc/PID/ns/<kind>), but for ourselves. */
export function processesIn(kind: 'net' | 'user', inodes: ReadonlySet<number>): ProcessRef[] {
  if (inodes.size === 0) return []
  const found: ProcessRef[] = []
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const inode = namespaceInode(pid, kind)
    if (inode === undefined || !inodes.has(inode)) continue
    const ref = processRef(pid)
    if (ref) found.push(ref)
  }
  return found
}

/** The inode of a process's namespace, or undefined when it cannot be looked at. */
export function namespaceInode(pid: number | 'self', kind: 'net' | 'user'): number | undefined {
  try {
    return Number(/\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/${kind}`))?.[1])
  } catch {
    return undefined // gone, or another user's
  }
}

/** The inode of a namespace that is bound to a path, or undefined when there is none. */
export function boundNamespaceInode(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino
}

function readStat(pid: number): { state: string; startTime: number } | undefined {
  let text: string | undefined
  try {
    text = readIfThere(`/proc/${pid}/stat`)
  } catch (err) {
    if (errorCode(err) === 'ESRCH') return undefined
    throw err
  }
  if (text === undefined) return undefined
  // The command's name, in parentheses, may hold anything; what follows it does not.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { state: fields[0] ?? '', startTime: Number(fields[19]) }
}
