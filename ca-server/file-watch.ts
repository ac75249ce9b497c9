/**
 * Files that somebody else replaces: the world file, key sets, an intermediate's key. A directory watch makes a
 * change seen at once; looking once a second makes it seen at all (mounted Secrets and network file systems send
 * no events). What cannot be read is told to `failed` and what was loaded before stays in force.
 */
import { statSync, watch, type FSWatcher } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'

export interface FileWatchOptions {
  readonly paths: readonly string[]
  /** Takes the contents, in the order of `paths`. What it throws goes to `failed`. */
  readonly load: (texts: readonly string[]) => void | Promise<void>
  /** Told once per distinct state of the files that could not be read or loaded. */
  readonly failed: (err: unknown) => void
  /** How often to look without being told, milliseconds. @default 1000 */
  readonly pollMs?: number
}

export class FileWatch {
  readonly #options: FileWatchOptions
  #stamp = ''
  #texts: readonly string[] | undefined
  #running: Promise<void> | undefined
  #again = false

  constructor(options: FileWatchOptions) {
    this.#options = options
  }

  /** Reads and loads now; rejects with what `load` or the file system said. */
  async loadNow(): Promise<void> {
    this.#stamp = this.#stampNow()
    await this.#readAndLoad()
  }

  /** Looks whether the files have changed, and loads them if so. Never rejects. */
  check(): Promise<void> {
    if (this.#running) {
      this.#again = true
      return this.#running
    }
    this.#running = this.#checkUntilQuiet().finally(() => (this.#running = undefined))
    return this.#running
  }

  /** Follows the files until the signal aborts. */
  follow(signal: AbortSignal): void {
    if (signal.aborted) return
    const look = (): void => void this.check()
    const watchers = [...new Set(this.#options.paths.map(path => dirname(path)))].map(directory =>
      watchDirectory(directory, look),
    )
    const timer = setInterval(look, this.#options.pollMs ?? 1000)
    signal.addEventListener('abort', () => {
      clearInterval(timer)
      for (const watcher of watchers) watcher?.close()
    })
    look()
  }

  async #checkUntilQuiet(): Promise<void> {
    do {
      this.#again = false
      const stamp = this.#stampNow()
      if (stamp === this.#stamp) continue
      this.#stamp = stamp
      await this.#readAndLoad().catch((err: unknown) => this.#options.failed(err))
    } while (this.#again)
  }

  async #readAndLoad(): Promise<void> {
    const texts = await Promise.all(this.#options.paths.map(path => readFile(path, 'utf8')))
    if (this.#texts && texts.every((text, at) => text === this.#texts![at])) return
    await this.#options.load(texts)
    this.#texts = texts
  }

  /** Inode, size and time: differs after an atomic replacement as after a write in place. */
  #stampNow(): string {
    return this.#options.paths
      .map(path => {
        try {
          const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
          return stat ? `${stat.ino}:${stat.size}:${stat.mtimeNs}` : 'absent'
        } catch (err) {
          return String(err)
        }
      })
      .join(' ')
  }
}

function watchDirectory(directory: string, changed: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(directory, { persistent: false })
    watcher.on('error', () => watcher.close())
    watcher.on('change', changed)
    return watcher
  } catch {
    return undefined // not there, or out of inotify watches: the timer does the work
  }
}
