/**
 * The JavaScript heaps of the process, one for each thread. Workers are found by Node's own notice of each that
 * begins, so whoever starts one need not know of this.
 */
import { getHeapStatistics, type HeapInfo } from 'node:v8'
import type { Worker } from 'node:worker_threads'

export interface ThreadHeap {
  /** `main`, or the name that the worker was given. */
  readonly thread: string
  /** Bytes in use by JavaScript, garbage included. */
  readonly used: number
  /** Bytes that the heap has of the system. */
  readonly total: number
  /** Bytes outside of the heap that live as long as an object in it: buffers, mostly. */
  readonly external: number
}

export class ThreadHeaps {
  readonly #workers = new Set<Worker>()

  /** Knows the workers that begin from now on. */
  constructor() {
    process.on('worker', worker => {
      this.#workers.add(worker)
      worker.once('exit', () => this.#workers.delete(worker))
    })
  }

  /** Asks all threads; a busy one answers when it gets to it, one that ends meanwhile is left out. */
  async read(): Promise<ThreadHeap[]> {
    const heaps = [heapOf('main', getHeapStatistics())]
    const answers = [...this.#workers].map(async worker => {
      const name = worker.threadName || `worker-${worker.threadId}`
      return heapOf(name, await worker.getHeapStatistics())
    })
    for (const answer of await Promise.allSettled(answers))
      if (answer.status === 'fulfilled') heaps.push(answer.value)
    return heaps
  }
}

function heapOf(thread: string, info: HeapInfo): ThreadHeap {
  return {
    thread,
    used: info.used_heap_size,
    total: info.total_heap_size,
    external: info.external_memory,
  }
}
