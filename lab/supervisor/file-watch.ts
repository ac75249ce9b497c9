/** Hearing that a file was changed, whichever way its editor replaces it. */
import { statSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'

const POLL_MS = 1000

/**
 * Calls `changed` after the file has got another content or was replaced, until the signal aborts. The
 * directory is watched, since editors replace files; and the file looked at every second, since not every
 * file system tells.
 */
export function watchFile(path: string, signal: AbortSignal, changed: () => void): void {
  let seen = stampOf(path)
  const look = () => {
    const now = stampOf(path)
    if (now === seen) return
    seen = now
    if (now !== undefined) changed()
  }
  const watcher = watch(dirname(path), { signal }, (_, name) => {
    if (name === null || name === basename(path)) look()
  })
  watcher.on('error', () => undefined) // the poll goes on
  const timer = setInterval(look, POLL_MS)
  signal.addEventListener('abort', () => clearInterval(timer), { once: true })
}

function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat && `${stat.ino} ${stat.mtimeNs} ${stat.size}`
}
