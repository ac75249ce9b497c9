/**
 * Giving back pages of memory that the process can do without. Freed C memory goes back to the kernel. Pages of the
 * program's file that were looked at during the start (half of Node's program is: snapshots, ICU, parsers) are unmapped:
 * they stay in the page cache, shared with every other Node of the machine, and those that are needed again come back
 * within a microsecond each.
 */
import { readFileSync } from 'node:fs'
import { libc } from './libc.ts'

const MADV_DONTNEED = 4 // asm-generic/mman-common.h

export interface PageRange {
  /** Address; below 2^47 on the machines we run on. */
  readonly start: number
  /** Bytes. */
  readonly length: number
}

/** Gives freed C memory and the pages of the program's file back. The C memory only with glibc: musl gives it back by itself. */
export function releasePages(): void {
  libc.mallocTrim?.(0)
  for (const { start, length } of programPages(readFileSync('/proc/self/smaps', 'utf8'), process.execPath))
    libc.madvise(start, length, MADV_DONTNEED) // advice: where the kernel does not take it, nothing is lost
}

/**
 * The ranges of proc_pid_smaps(5) that hold an unchanged part of `file`. A range that is writable, or in which a single
 * page was changed (relocations, made read-only afterwards), would lose those changes and is left out.
 */
export function programPages(smaps: string, file: string): PageRange[] {
  const ranges: PageRange[] = []
  for (const entry of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, from, to, path] = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \d+ +(.*)$/m.exec(entry) ?? []
    if (from === undefined || to === undefined || path !== file) continue
    if (!/^Anonymous: +0 kB$/m.test(entry) || !/^Private_Dirty: +0 kB$/m.test(entry)) continue
    const start = Number.parseInt(from, 16)
    ranges.push({ start, length: Number.parseInt(to, 16) - start })
  }
  return ranges
}
