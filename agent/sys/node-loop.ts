/**
 * The event loop that Node itself runs on this thread, as a descriptor that becomes readable when Node has something
 * to do: libuv's backend descriptor (uv_backend_fd(3)). By the symbols that the node binary exports for addons.
 */
import koffi from 'koffi'

/** Undefined where the binary does not export what is needed: then nobody can wait for both loops at once. */
export function nodeBackendFd(): number | undefined {
  try {
    const self = koffi.load(null)
    const isolate = self.func('uint64_t _ZN2v87Isolate10GetCurrentEv()')() as number
    const loop = self.func('uint64_t _ZN4node19GetCurrentEventLoopEPN2v87IsolateE(uint64_t)')(
      isolate,
    ) as number
    if (!loop) return undefined
    const fd = self.func('int uv_backend_fd(uint64_t)')(loop) as number
    return fd >= 0 ? fd : undefined
  } catch {
    return undefined
  }
}
