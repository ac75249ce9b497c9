/** Hearing that a file was changed, whichever way its editor replaces it. */
import { statSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'

const POLL_MS = 1000
/** A file that is written in place is empty at first, then half there: neither is what its writer means. */
const SETTLE_MS = 100

/**
 * Calls `changed` after the file has got another content or was replaced and stays so for a moment, until the signal
 * aborts. One that has become empty is waited for. The directory is watched, since editors replace files; and the
 * file looked at every second, since not every file system tells.
 */
export function watchFile(path: string, signal: AbortSignal, changed: () => void): void {
  let seen = stampOf(path)
  let settling: NodeJS.Timeout | undefined
  const look = () => {
    const now = stampOf(path)
    if (now === seen) return
    seen = now
    clearTimeout(settling)
    if (now !== undefined) settling = setTimeout(settled, SETTLE_MS)
  }
  const settled = () => {
    if (stampOf(path) === seen) changed()
    else look()
  }
  watchDirectory(path, signal, look)
  const timer = setInterval(look, POLL_MS)
  const stop = () => {
    clearInterval(timer)
    clearTimeout(settling)
  }
  signal.addEventListener('abort', stop, { once: true })
}

function watchDirectory(path: string, signal: AbortSignal, look: () => void): void {
  try {
    const watcher = watch(dirname(path), { signal }, (_, name) => {
      if (name === null || name === basename(path)) look()
    })
    watcher.on('error', () => undefined) // the poll goes on
  } catch {
    // A machine has only so many inotify instances, and others may have taken them all: the poll does the work.
  }
}

function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat && stat.size > 0n ? `${stat.ino} ${stat.mtimeNs} ${stat.size}` : undefined
}
