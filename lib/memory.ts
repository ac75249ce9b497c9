/**
 * Keeps a process's memory near what is in use. V8 keeps what its heaps once grew to until it hears that memory is
 * short, and nobody tells it: without this an idle agent would stay at what its start took, and one that has learnt of
 * a hundred thousand workloads at three times what it keeps of them. So would the ca-server.
 *
 * Threads stand still while their heaps are collected, so it is done only when the process has next to nothing to do.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { collectGarbage } from './garbage.ts'
import type { Logger } from './log.ts'

export interface MemoryOptions {
  readonly log: Logger
  /** Gives back what else can be given back, each time that the heaps have been. */
  readonly release?: () => void
  /** How often it looks. @default 1000 */
  readonly lookEveryMs?: number
  /** Idle is who has used less than this part of one processor since the last look. @default 0.05 */
  readonly idleBelow?: number
  /** Growth since the last time that is worth another. @default 16 MiB, or a quarter if that is more */
  readonly worthBytes?: number
}

/** Rest after each time, as a multiple of what it took: two percent of the time at most go into this, all of it idle. */
const REST = 50

/** Runs until the signal aborts. */
export async function keepMemorySmall(options: MemoryOptions, signal: AbortSignal): Promise<void> {
  const { log, release, lookEveryMs = 1000, idleBelow = 0.05, worthBytes = 16 * 1024 * 1024 } = options
  let keptBytes = 0
  let notBeforeMs = 0
  let before = process.cpuUsage()
  while (await pause(lookEveryMs, signal)) {
    const { user, system } = process.cpuUsage(before)
    before = process.cpuUsage()
    if (user + system > idleBelow * lookEveryMs * 1000 || performance.now() < notBeforeMs) continue
    const fromBytes = ownMemory()
    if (fromBytes - keptBytes < Math.max(worthBytes, keptBytes / 4)) continue
    const startedAtMs = performance.now()
    await collectGarbage()
    release?.()
    keptBytes = ownMemory()
    before = process.cpuUsage()
    const tookMs = Math.round(performance.now() - startedAtMs)
    notBeforeMs = performance.now() + REST * tookMs
    log.debug({ fromBytes, toBytes: keptBytes, tookMs }, 'gave memory back')
  }
}

/** False when the signal aborts. */
async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, undefined, { signal })
    return true
  } catch {
    return false
  }
}

/** Bytes of resident memory that are the process's own, not a file's: `RssAnon` of proc_pid_status(5). */
export function ownMemory(): number {
  const kib = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return Number(kib ?? 0) * 1024
}
