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
  /** The same for one that has been idle for `LONG_IDLE_LOOKS` looks. @default a quarter of `worthBytes` */
  readonly longIdleWorthBytes?: number
  /** Growth, in pages of programs, that is worth a `release` alone, of one that has been idle for so long. @default 4 MiB */
  readonly worthFileBytes?: number
}

/** So many looks in a row found it idle: what happens next may be far away. */
const LONG_IDLE_LOOKS = 8

/** Rest after each time, as a multiple of what it took: two percent of the time at most go into this, all of it idle. */
const REST = 50

/** Runs until the signal aborts. */
export async function keepMemorySmall(options: MemoryOptions, signal: AbortSignal): Promise<void> {
  const { log, release, lookEveryMs = 1000, idleBelow = 0.05, worthBytes = 16 * 1024 * 1024 } = options
  const { longIdleWorthBytes = worthBytes / 4, worthFileBytes = 4 * 1024 * 1024 } = options
  let keptBytes = 0
  // What is used of programs when little happens; taken some looks after they were given back.
  let restingFileBytes: number | undefined
  let idleLooks = 0
  let notBeforeMs = 0
  let before = process.cpuUsage()
  while (await pause(lookEveryMs, signal)) {
    const { user, system } = process.cpuUsage(before)
    before = process.cpuUsage()
    idleLooks = user + system > idleBelow * lookEveryMs * 1000 ? 0 : idleLooks + 1
    if (idleLooks === 0 || performance.now() < notBeforeMs) continue
    const fromBytes = ownMemory()
    const worth =
      idleLooks < LONG_IDLE_LOOKS
        ? Math.max(worthBytes, keptBytes / 4)
        : Math.max(longIdleWorthBytes, keptBytes / 16)
    if (fromBytes - keptBytes < worth) {
      if (idleLooks < LONG_IDLE_LOOKS || !release) continue
      const fileBytes = fileMemory()
      restingFileBytes ??= fileBytes
      if (fileBytes - restingFileBytes < worthFileBytes) continue
      // The next use finds these pages again where they are.
      release()
      restingFileBytes = undefined
      idleLooks = 0
      continue
    }
    const startedAtMs = performance.now()
    await collectGarbage()
    release?.()
    keptBytes = ownMemory()
    restingFileBytes = undefined
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
  return residentBytes('RssAnon')
}

/** Bytes of resident memory that are a file's: programs and libraries. */
function fileMemory(): number {
  return residentBytes('RssFile')
}

function residentBytes(kind: 'RssAnon' | 'RssFile'): number {
  const kib = new RegExp(`^${kind}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return Number(kib ?? 0) * 1024
}
