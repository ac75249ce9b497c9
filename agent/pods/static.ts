/**
 * Pods from a file, `{"pods": [LocalPod, …]}`, which its owner replaces as a whole. What differs from the time
 * before is told; a file that is missing or malformed changes nothing, and is complained about once.
 */
import { readFileSync, statSync, watch, type FSWatcher } from 'node:fs'
import { basename, dirname } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { parsePods } from './pod-file.ts'
import type { LocalPod, PodEvents, PodSource, SourceStatus } from './source.ts'
import { Turns } from './turns.ts'

export interface StaticPodSourceOptions {
  readonly file: string
  readonly log: Logger
  /** How often the file is looked at, in case the kernel's notice of a change was missed. @default 1000 */
  readonly pollMs?: number
}

export class StaticPodSource implements PodSource {
  readonly #file: string
  readonly #log: Logger
  readonly #pollMs: number
  #known = new Map<string, LocalPod>()
  readonly #turns = new Turns((podUid, err) =>
    this.#log.error({ podUid, err: errorText(err) }, 'pod event failed'),
  )
  #isSynced = false
  /** What the file looked like when it was last read. */
  #version = ''
  #complaint = ''

  constructor(options: StaticPodSourceOptions) {
    this.#file = options.file
    this.#log = options.log
    this.#pollMs = options.pollMs ?? 1000
  }

  status(): SourceStatus {
    const waitsFor = this.#isSynced ? undefined : this.#complaint || `the file ${this.#file}`
    return { kind: 'static', waitsFor, file: this.#file, pods: this.#known.size }
  }

  run(events: PodEvents, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    if (signal.aborted) return Promise.resolve()
    const look = () => this.#look(events)
    const poll = setInterval(look, this.#pollMs)
    const watcher = this.#watchDirectory(look)
    const stop = () => {
      clearInterval(poll)
      watcher?.close()
      resolve()
    }
    signal.addEventListener('abort', stop, { once: true })
    look()
    return promise
  }

  /** The directory, not the file: a file that is replaced is another one. Polling alone is enough, only slower. */
  #watchDirectory(look: () => void): FSWatcher | undefined {
    try {
      const watcher = watch(dirname(this.#file), (_, name) => {
        if (name === null || name === basename(this.#file)) look()
      })
      watcher.on('error', err => {
        this.#log.debug({ err: errorText(err) }, 'directory of the pod file cannot be watched; polling')
        watcher.close()
      })
      return watcher
    } catch (err) {
      this.#log.debug({ err: errorText(err) }, 'directory of the pod file cannot be watched; polling')
      return undefined
    }
  }

  #look(events: PodEvents): void {
    try {
      const { ino, size, mtimeNs } = statSync(this.#file, { bigint: true })
      const version = `${ino} ${size} ${mtimeNs}`
      if (version === this.#version) return
      const pods = parsePods(readFileSync(this.#file, 'utf8'))
      this.#version = version
      this.#complaint = ''
      this.#tell(pods, events)
    } catch (err) {
      const complaint = errorText(err)
      if (complaint === this.#complaint) return
      this.#complaint = complaint
      this.#log.error({ file: this.#file, err: complaint }, 'pod file is not usable; keeping what was known')
    }
  }

  #tell(pods: readonly LocalPod[], events: PodEvents): void {
    const now = new Map(pods.map(pod => [pod.uid, pod]))
    const before = this.#known
    this.#known = now
    for (const uid of before.keys())
      if (!now.has(uid)) void this.#turns.inTurn(uid, () => events.podGone(uid))
    for (const [uid, pod] of now)
      if (!isDeepStrictEqual(before.get(uid), pod)) void this.#turns.inTurn(uid, () => events.podSeen(pod))
    if (this.#isSynced) return
    this.#isSynced = true
    void this.#turns.inTurn('', () => events.synced(new Set(now.keys())))
  }
}
