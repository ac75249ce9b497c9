/**
 * Keeps one kind of objects true to the API server for as long as the program runs: lists them page by page, then
 * watches from there. The rules:
 *
 * - Whatever fails is tried again, later and later, and never sooner than the server asks; only the signal ends it.
 * - A watch goes on where the last one ended, and is given up when it is silent for longer than bookmarks are apart.
 * - When the server no longer knows that place (410), or keeps refusing it, everything is listed anew. Objects are put in
 *   as they come and what was not listed is taken out at the end, so nothing that lives is missing in between.
 * - An object that cannot be read changes nothing: the last good state of it stays.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { Backoff, type BackoffOptions } from '../../lib/backoff.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { KubeObject } from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'
import { ApiError, NoAnswerError, type ApiClient } from './api-client.ts'
import { listPages } from './pages.ts'
import type { WatchedResource } from './resources.ts'
import { Unreadable } from './unreadable.ts'
import { headOf, parseWatchEvent } from './watch-event.ts'

/** Where the objects go. */
export interface ObjectSink {
  put(objects: readonly KubeObject[]): void
  remove(key: string): void
  /** Takes out what is not named: a listing has ended. */
  keepOnly(keys: ReadonlySet<string>): void
}

/** Told of what happens, for metrics. */
export interface ReflectorObserver {
  listed(objects: number): void
  watchEnded(): void
  failed(): void
  event(): void
}

export interface ReflectorOptions {
  readonly resource: WatchedResource
  readonly client: ApiClient
  readonly sink: ObjectSink
  /** The object as it is kept. When problems are added to the list it is not taken. */
  readonly read: (raw: unknown, problems: string[]) => KubeObject
  readonly observer: ReflectorObserver
  readonly log: Logger
  readonly backoff?: BackoffOptions
  /** How long a watch may be silent, milliseconds; the API server sends a bookmark every minute. @default 150000 */
  readonly silenceMs?: number
  /** Longest page of a list, bytes. @default 32 MiB */
  readonly maxPageBytes?: number
  /** Longest event; the API server takes objects of up to 3 MiB. @default 8 MiB */
  readonly maxEventBytes?: number
}

const DEFAULTS = { silenceMs: 150_000, maxPageBytes: 32 * 1024 * 1024, maxEventBytes: 8 * 1024 * 1024 }
/** A watch is asked to end after this long to twice that: so clients spread over API servers that come and go. */
const WATCH_SECONDS = 300
/** A watch that ended sooner, without an event, counts as failed. */
const SHORT_WATCH_MS = 1000
/** Answers that refuse one and the same place before it is given up. */
const MAX_REFUSALS = 5
/** Objects that are put in before others have a turn. */
const OBJECTS_IN_A_TURN = 100

export class Reflector {
  readonly #options: ReflectorOptions & typeof DEFAULTS
  readonly #backoff: Backoff
  readonly #unreadable: Unreadable
  /** Where to go on watching; undefined when everything has to be listed. */
  #resourceVersion: string | undefined
  #refusals = 0
  #hasListed = false
  #fault: string | undefined

  constructor(options: ReflectorOptions) {
    this.#options = { ...DEFAULTS, ...options }
    this.#backoff = new Backoff({ maxMs: 30_000, ...options.backoff })
    this.#unreadable = new Unreadable(options.log)
  }

  get resource(): WatchedResource {
    return this.#options.resource
  }

  /** Reports whether everything has been listed once. */
  get hasListed(): boolean {
    return this.#hasListed
  }

  /** What is wrong now, for people; undefined when nothing is. */
  get fault(): string | undefined {
    return this.#fault
  }

  /** Lists and watches until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#resourceVersion === undefined) await this.#list(signal)
        else await this.#watch(this.#resourceVersion, signal)
      } catch (err) {
        if (!signal.aborted) await this.#pauseAfter(err, signal)
      }
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { resource, client, sink, observer, maxPageBytes, log } = this.#options
    const keys = new Set<string>()
    let resourceVersion: string | undefined
    for await (const page of listPages(client, resource, maxPageBytes, signal)) {
      resourceVersion = page.resourceVersion
      while (page.items.length > 0) {
        sink.put(page.items.splice(-OBJECTS_IN_A_TURN).flatMap(raw => this.#read(raw, keys)))
        await nextTurn()
      }
    }
    signal.throwIfAborted()
    sink.keepOnly(keys)
    this.#unreadable.keepOnly(keys)
    this.#resourceVersion = resourceVersion
    this.#hasListed = true
    this.#refusals = 0
    this.#answered()
    observer.listed(keys.size)
    log.info({ resource: resource.name, objects: keys.size }, 'listed')
  }

  async #watch(from: string, signal: AbortSignal): Promise<void> {
    const { resource, client, observer, silenceMs, maxEventBytes } = this.#options
    const query = {
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: from,
      timeoutSeconds: `${Math.floor(WATCH_SECONDS * (1 + Math.random()))}`,
    }
    const limits = { silenceMs, maxBytes: maxEventBytes }
    const startMs = performance.now()
    const isShort = (): boolean => performance.now() - startMs < SHORT_WATCH_MS
    try {
      for await (const line of client.lines(resource.path, query, limits, signal)) {
        if (line.kind === 'line') this.#take(line.text)
        else this.#unreadable.tell(line.head, '', [`an event of ${line.bytes} bytes`])
      }
    } finally {
      observer.watchEnded()
      if (!isShort()) this.#backoff.reset()
    }
    if (this.#resourceVersion === from && isShort())
      throw new CulvertError('KUBERNETES', `watch of ${resource.name} ended at once`)
  }

  #take(line: string): void {
    const { resource, sink, observer } = this.#options
    const { type, object } = parseWatchEvent(line, `watch of ${resource.name}`)
    const { key, resourceVersion } = headOf(object)
    if (resourceVersion === '' || (key === '' && type !== 'bookmark'))
      throw new CulvertError('KUBERNETES', `watch of ${resource.name}: an event without name or version`)
    if (type === 'put') sink.put(this.#read(object))
    if (type === 'delete') {
      this.#unreadable.forget(key)
      sink.remove(key)
    }
    this.#resourceVersion = resourceVersion
    this.#refusals = 0
    this.#backoff.reset()
    this.#answered()
    observer.event()
  }

  /** The object, or nothing when it cannot be read. Its key is added to `keys` all the same: it is there. */
  #read(raw: unknown, keys?: Set<string>): KubeObject[] {
    const { key, resourceVersion } = headOf(raw)
    keys?.add(key)
    const problems: string[] = []
    const object = this.#options.read(raw, problems)
    if (problems.length === 0) {
      this.#unreadable.forget(key)
      return [object]
    }
    this.#unreadable.tell(key, resourceVersion, problems)
    return []
  }

  #answered(): void {
    if (this.#fault === undefined) return
    this.#fault = undefined
    this.#options.log.info({ resource: this.resource.name }, 'the API server answers again')
  }

  /** Says what went wrong, decides where to go on, and waits. */
  async #pauseAfter(failure: unknown, signal: AbortSignal): Promise<void> {
    const { resource, observer, log } = this.#options
    observer.failed()
    const answer = failure instanceof ApiError ? failure : undefined
    const isExpired = answer?.status === 410
    if (answer?.status !== 429 && !(failure instanceof NoAnswerError)) this.#refusals++
    const text = errorText(failure)
    if (isExpired) log.info({ resource: resource.name, err: text }, 'the server has forgotten, listing anew')
    else if (text !== this.#fault) {
      this.#fault = text
      log.warn({ resource: resource.name, err: text }, 'list or watch failed, trying again')
    }
    if (isExpired || this.#refusals >= MAX_REFUSALS) this.#resourceVersion = undefined
    const askedMs = (answer?.retryAfterMs ?? 0) * (1 + Math.random() / 5)
    await sleep(Math.max(askedMs, this.#backoff.next()), undefined, { signal }).catch(() => undefined)
  }
}
