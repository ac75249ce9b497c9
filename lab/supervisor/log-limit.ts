/**
 * Keeping logs from filling the file system that they are on, which as a rule is memory. Whoever writes a log
 * appends to it, so it can be emptied under their hands.
 */
import { readdirSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'

/** An access log has about 700 bytes a connection. */
export const MAX_LOG_BYTES: number = 256 * 1024 * 1024
const LOOK_EVERY_MS = 2000

/** Empties logs that have grown too long, until the signal aborts; `emptied` is told which. */
export function limitLogs(dir: string, signal: AbortSignal, emptied: (name: string) => void): void {
  const timer = setInterval(() => {
    for (const name of tooLong(dir, MAX_LOG_BYTES)) {
      truncateSync(join(dir, name))
      emptied(name)
    }
  }, LOOK_EVERY_MS)
  signal.addEventListener('abort', () => clearInterval(timer), { once: true })
}

/** The names of a directory's files that are longer than this. */
export function tooLong(dir: string, maxBytes: number): string[] {
  return readdirSync(dir).filter(name => {
    const stat = statSync(join(dir, name), { throwIfNoEntry: false })
    return stat !== undefined && stat.size > maxBytes
  })
}
