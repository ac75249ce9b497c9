/**
 * Questions that wait for discovery: for an address to become known, or for the first full picture. Bounded: a
 * pod that dials its way through the cluster's ranges must not fill the agent's memory with waiting questions.
 */
import { CulvertError } from '../../lib/errors.ts'

const MAX_WAITING = 16_384

interface Waiter {
  readonly wake: () => void
}

export class Waiters {
  readonly #byIp = new Map<string, Set<Waiter>>()
  readonly #forSync = new Set<Waiter>()
  #waiting = 0
  #isSynced = false

  /** Resolves when the address is woken or the time is over; at once when too many wait already. */
  wait(ip: string, timeoutMs: number): Promise<void> {
    if (this.#waiting >= MAX_WAITING || timeoutMs <= 0) return Promise.resolve()
    this.#waiting++
    const { promise, resolve } = Promise.withResolvers<void>()
    let waiters = this.#byIp.get(ip)
    if (!waiters) this.#byIp.set(ip, (waiters = new Set()))
    const all = waiters
    const waiter: Waiter = {
      wake: () => {
        clearTimeout(timer)
        if (all.delete(waiter)) this.#waiting--
        if (all.size === 0 && this.#byIp.get(ip) === all) this.#byIp.delete(ip)
        resolve()
      },
    }
    const timer = setTimeout(waiter.wake, timeoutMs)
    all.add(waiter)
    return promise
  }

  wake(ips: Iterable<string>): void {
    if (this.#waiting === 0) return
    // A set may lose members while it is gone through: each waiter takes itself out.
    for (const ip of ips) for (const waiter of this.#byIp.get(ip) ?? []) waiter.wake()
  }

  wakeAll(): void {
    this.wake([...this.#byIp.keys()])
  }

  /** Resolves after `synced()`; rejects when the signal aborts before. */
  async whenSynced(signal: AbortSignal): Promise<void> {
    if (this.#isSynced) return
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter: Waiter = { wake: resolve }
    const abort = () => reject(new CulvertError('CLOSED', 'stopped while waiting for discovery'))
    this.#forSync.add(waiter)
    signal.addEventListener('abort', abort, { once: true })
    try {
      await promise
    } finally {
      this.#forSync.delete(waiter)
      signal.removeEventListener('abort', abort)
    }
  }

  synced(): void {
    this.#isSynced = true
    for (const waiter of this.#forSync) waiter.wake()
  }
}
