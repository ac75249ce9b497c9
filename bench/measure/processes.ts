/** What processes have used and hold, from proc(5). Processes that end while they are read count for nothing. */
import { readdirSync, readFileSync } from 'node:fs'

/** `utime` and `stime` count in USER_HZ, which is 100 on every Linux that Node runs on. */
const MS_PER_TICK = 10

/** The process and everything that it, or one of those, has started and that still has its parent. */
export function processTree(root: number): number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid)) continue
    const parent = Number(statFields(pid)?.[1])
    if (parent) children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const found = [root]
  for (const pid of found) found.push(...(children.get(pid) ?? []))
  return found
}

/** Processor time of all their threads, user and system, ms. */
export function cpuMs(pids: readonly number[]): number {
  const ticks = pids.flatMap(pid => {
    const fields = statFields(pid)
    return fields ? [Number(fields[11]), Number(fields[12])] : []
  })
  return ticks.reduce((sum, each) => sum + each, 0) * MS_PER_TICK
}

/** Processor time of what a process has started and what has ended since, user and system, ms. */
export function endedCpuMs(pid: number): number {
  const fields = statFields(pid)
  return fields ? (Number(fields[13]) + Number(fields[14])) * MS_PER_TICK : 0
}

/** Resident memory, bytes: every page counted in each process that has it. */
export function residentBytes(pids: readonly number[]): number {
  return sumOfKb(pids, pid => `/proc/${pid}/status`, /^VmRSS:\s+(\d+) kB$/m)
}

/** Resident memory, bytes: a page that n processes share counts for 1/n in each. */
export function proportionalBytes(pids: readonly number[]): number {
  return sumOfKb(pids, pid => `/proc/${pid}/smaps_rollup`, /^Pss:\s+(\d+) kB$/m)
}

/** A process's command line. */
export function commandLine(pid: number): string {
  return (readProc(`/proc/${pid}/cmdline`) ?? '').replaceAll('\0', ' ').trim()
}

function sumOfKb(pids: readonly number[], path: (pid: number) => string, pattern: RegExp): number {
  const kilobytes = pids.map(pid => Number(pattern.exec(readProc(path(pid)) ?? '')?.[1] ?? 0))
  return kilobytes.reduce((sum, each) => sum + each, 0) * 1024
}

/** proc_pid_stat(5) from its third field on: the second, a name in parentheses, may hold anything. */
function statFields(pid: number): string[] | undefined {
  const stat = readProc(`/proc/${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined // gone meanwhile
  }
}
