/**
 * The event loop that Node itself runs on this thread, by libuv's functions, which the node binary exports for addons: a
 * descriptor that becomes readable when Node has something to do (uv_backend_fd(3)), and when its next timer is due.
 */
import koffi, { type LibraryHandle } from 'koffi'

export interface NodeLoop {
  readonly fd: number
  /**
   * Milliseconds until the first of Node's timers is due; Infinity without any. Undefined when it cannot be told: at the
   * first times, while one is about to go off.
   */
  readonly msUntilTimer: () => number | undefined
}

// uv.h
const UV_TIMER = 13
/** Of the timer that is set to see which of libuv's it is. */
const FINDING_MS = 1

/** Undefined where the binary does not export what is needed: then nobody can wait for both loops at once. */
export function nodeLoop(): NodeLoop | undefined {
  try {
    const self = koffi.load(null)
    const isolate = self.func('uint64_t _ZN2v87Isolate10GetCurrentEv()')() as number
    const loop = self.func('uint64_t _ZN4node19GetCurrentEventLoopEPN2v87IsolateE(uint64_t)')(
      isolate,
    ) as number
    if (!loop) return undefined
    const fd = self.func('int uv_backend_fd(uint64_t)')(loop) as number
    return fd >= 0 ? { fd, msUntilTimer: timerOf(self, loop) } : undefined
  } catch {
    return undefined
  }
}

/** All timers of JavaScript are one of libuv's, which lives as long as the thread: the one that a new timer sets. */
function timerOf(self: LibraryHandle, loop: number): () => number | undefined {
  try {
    return timerBy(self, loop)
  } catch {
    return () => undefined
  }
}

function timerBy(self: LibraryHandle, loop: number): () => number | undefined {
  const isActive = self.func('int uv_is_active(uint64_t)') as (handle: number) => number
  const dueIn = self.func('uint64_t uv_timer_get_due_in(uint64_t)') as (handle: number) => number
  const update = self.func('void uv_update_time(uint64_t)') as (loop: number) => void
  const now = self.func('uint64_t uv_now(uint64_t)') as (loop: number) => number
  const stateOf = (handle: number) => (isActive(handle) ? dueIn(handle) : Infinity)
  /** When it goes off: the same at any time, for one that is neither set anew nor late. */
  const dueAt = (handle: number) => now(loop) + stateOf(handle)
  // V8 has timers of its own for its tasks, and the time may go on in between: the right one is due anew, and just now set.
  const find = () => {
    update(loop)
    const before = timersOf(self, loop).map(handle => ({ handle, at: dueAt(handle) }))
    clearTimeout(setTimeout(() => undefined, FINDING_MS))
    const set = before.filter(({ handle, at }) => stateOf(handle) === FINDING_MS && dueAt(handle) !== at)
    return set.length === 1 ? set[0]?.handle : undefined
  }
  let timer: number | undefined
  return () => {
    timer ??= find()
    if (timer === undefined) return undefined
    update(loop)
    return stateOf(timer)
  }
}

function timersOf(self: LibraryHandle, loop: number): number[] {
  if (self.func('const char *uv_handle_type_name(int)')(UV_TIMER) !== 'timer') return []
  const typeOf = self.func('int uv_handle_get_type(uint64_t)') as (handle: number) => number
  const visitor = koffi.pointer(koffi.proto('void (uint64_t handle, uint64_t argument)'))
  const walk = self.func('uv_walk', 'void', ['uint64_t', visitor, 'uint64_t']) as (
    loop: number,
    visit: (handle: number) => void,
    argument: number,
  ) => void
  const timers: number[] = []
  walk(
    loop,
    handle => {
      if (typeOf(handle) === UV_TIMER) timers.push(handle)
    },
    0,
  )
  return timers
}
