/**
 * The event loop of a data-plane thread: epoll, asked directly. Node's own streams cost several times what the kernel
 * does for the same bytes (allocation, copies, a callback and a microtask turn per 16 KiB), so the sockets that carry
 * traffic do not go through them. Node's loop goes on beside this one, for timers, messages and everything else:
 * - this loop waits for its sockets and for Node's loop at once, and lets Node's run whenever it has something to
 *   do, and at least every few milliseconds; only when nothing at all has happened for a while, when the next of Node's
 *   timers is due.
 * - promises and `process.nextTick` are served after each batch of events.
 * - a thread that serves no socket leaves everything to Node, and can end.
 */
import { performance } from 'node:perf_hooks' // the global of this name is looked up anew each time
import { Epoll, EPOLLIN } from '../sys/epoll.ts'
import { nodeLoop, type NodeLoop } from '../sys/node-loop.ts'

export interface Watcher {
  /** `events`: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP. What it throws is nobody's: it goes to the process, and the loop goes on. */
  ready(events: number): void
}

/** One wait gives so many events; others are found by the next one. */
const BATCH = 256
/** Node's timers may be late by as much. */
const LONGEST_WAIT_MS = 20
/** So many waits in a row that brought nothing, and nothing is left that was put off: the next one may be long. */
const QUIET_WAITS = 4
const LONGEST_QUIET_WAIT_MS = 1000
/** How long this loop goes on under load before Node's gets its turn. */
const SLICE_MS = 10
/** Where Node's loop cannot be waited for, it is asked so often. */
const BLIND_WAIT_MS = 1
/** Node registers what it was told to watch only in its next turn: so many turns without waiting come first. */
const QUICK_TURNS = 2

/** Undocumented, and in every Node since the first; without it promises are served once per turn of Node's loop. */
const serveMicrotasks: (() => void) | undefined = (process as unknown as { _tickCallback?: () => void })
  ._tickCallback

export class EventLoop {
  readonly #watchers: (Watcher | undefined)[] = []
  /** By which an event is told from one that was meant for an earlier descriptor of the same number. */
  readonly #tags: number[] = []
  #lastTag = 0
  #epoll: Epoll | undefined
  #count = 0
  #node: NodeLoop | undefined
  #isScheduled = false
  #quick = 0
  #quietWaits = 0
  /** Filled up to the count: an array that is emptied costs more than the callbacks. */
  readonly #after: (() => void)[] = []
  #afterCount = 0
  #again: (() => void)[] = []
  readonly #turn = (): void => this.#run()
  /** When the events at hand came, as `performance.now()` counts: for what need not be more exact. */
  nowMs = performance.now()

  /** Starts to watch a descriptor, which the caller closes after `remove`. Throws `SYSCALL`. */
  add(fd: number, events: number, watcher: Watcher): void {
    const tag = (this.#lastTag + 1) | 0
    this.#open().add(fd, events, tag)
    this.#lastTag = tag
    this.#tags[fd] = tag
    this.#watchers[fd] = watcher
    this.#count++
    this.#schedule()
  }

  /** Throws `SYSCALL`. */
  change(fd: number, events: number): void {
    this.#epoll!.change(fd, events, this.#tags[fd])
  }

  /** Stops to watch a descriptor that lives on. Throws `SYSCALL`. */
  remove(fd: number): void {
    if (this.forget(fd)) this.#epoll!.remove(fd)
  }

  /** Stops to watch a descriptor that is closed next and has no copy: the kernel forgets it with the close. */
  forget(fd: number): boolean {
    if (this.#watchers[fd] === undefined) return false
    this.#watchers[fd] = undefined
    this.#count--
    return true
  }

  /** Calls back once, when the events at hand have been served: what they all have written can leave together. */
  afterTurn(callback: () => void): void {
    this.#after[this.#afterCount++] = callback
    this.#schedule()
  }

  /** Calls back in the next turn, which does not wait: for who has more to do than is fair to do at once. */
  nextTurn(callback: () => void): void {
    this.#again.push(callback)
    this.#schedule()
  }

  #open(): Epoll {
    if (this.#epoll) return this.#epoll
    this.#epoll = new Epoll(BATCH)
    this.#node = nodeLoop()
    if (this.#node) this.#epoll.add(this.#node.fd, EPOLLIN)
    return this.#epoll
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#turn)
  }

  #run(): void {
    this.#isScheduled = false
    try {
      this.#serve()
    } finally {
      if (this.#count > 0 || this.#afterCount > 0 || this.#again.length > 0) this.#schedule()
    }
  }

  #serve(): void {
    this.#afterwards() // what was asked for outside of this loop
    const epoll = this.#open()
    let waitMs = 0
    if (this.#quick > 0) this.#quick--
    else if (this.#count > 0) {
      waitMs = this.#longestWaitMs()
      this.#quick = QUICK_TURNS
    }
    const nodeFd = this.#node?.fd
    const start = (this.nowMs = performance.now())
    let spentMs = 0
    do {
      const again = this.#again
      if (again.length > 0) {
        this.#again = []
        for (const callback of again) this.#call(callback)
        this.#afterwards()
      }
      const count = epoll.wait(this.#again.length > 0 ? 0 : Math.max(0, waitMs - Math.floor(spentMs)))
      this.nowMs = performance.now()
      if (count > 0) this.#quietWaits = 0
      let isNodeReady = nodeFd === undefined
      for (let at = 0; at < count; at++) {
        const fd = epoll.fdAt(at)
        if (fd === nodeFd) isNodeReady = true
        else if (this.#tags[fd] === epoll.tagAt(at)) this.#tell(fd, epoll.eventsAt(at))
      }
      this.#afterwards()
      if (isNodeReady || waitMs === 0 || this.#count === 0) return
      spentMs = this.nowMs - start
    } while (spentMs < SLICE_MS)
  }

  /**
   * Timers are Node's business and may call forth anything: after one the waits are short again. So are the first ones after
   * each event, and all while something is put off to a later turn of Node's, which is no event.
   */
  #longestWaitMs(): number {
    if (!this.#node) return BLIND_WAIT_MS
    if (this.#quietWaits++ < QUIET_WAITS || isAnythingPutOff()) return LONGEST_WAIT_MS
    const dueMs = this.#node.msUntilTimer()
    if (dueMs === undefined) return LONGEST_WAIT_MS
    if (dueMs <= LONGEST_QUIET_WAIT_MS) this.#quietWaits = 0
    return Math.min(dueMs, LONGEST_QUIET_WAIT_MS)
  }

  #tell(fd: number, events: number): void {
    try {
      this.#watchers[fd]?.ready(events)
    } catch (err) {
      escape(err)
    }
  }

  #call(callback: () => void): void {
    try {
      callback()
    } catch (err) {
      escape(err)
    }
  }

  #afterwards(): void {
    do {
      for (let at = 0; at < this.#afterCount; at++) {
        const callback = this.#after[at]!
        this.#after[at] = served
        this.#call(callback)
      }
      this.#afterCount = 0
      if (serveMicrotasks) this.#call(serveMicrotasks)
    } while (this.#afterCount > 0)
  }
}

/** Reports whether immediates are waiting, beside the one that is being served. */
function isAnythingPutOff(): boolean {
  return process.getActiveResourcesInfo().includes('Immediate')
}

/** Stands where a callback stood. */
function served(): void {}

/** To whoever hears of uncaught exceptions, once those have been served who had no part in it. */
function escape(err: unknown): void {
  setImmediate(() => {
    throw err
  })
}

/** This thread's. */
export const loop = new EventLoop()
