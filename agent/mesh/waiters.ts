/**
 * Questions that wait for discovery: for an address to become known, or for the first full picture. Bounded, for each
 * pod and for all of them: one that dials its way through the cluster's ranges must not fill the agent's memory with
 * waiting questions, nor take the place of its neighbours'.
 */
import { CulvertError } from '../../lib/errors.ts'

const MAX_WAITING = 65_536
const MAX_WAITING_OF_POD = 4096

interface Waiter {
  readonly wake: () => void
}

export class Waiters {
  readonly #byIp = new Map<string, Set<Waiter>>()
  readonly #forSync = new Set<Waiter>()
  readonly #ofPods = new Map<string, number>()
  #waiting = 0
  #isSynced = false

  /** Resolves when the address is woken or the time is over. False, and no wait, when too many wait already. */
  async wait(ip: string, timeoutMs: number, podUid: string): Promise<boolean> {
    const ofPod = this.#ofPods.get(podUid) ?? 0
    if (this.#waiting >= MAX_WAITING || ofPod >= MAX_WAITING_OF_POD || timeoutMs <= 0) return false
    this.#waiting++
    this.#ofPods.set(podUid, ofPod + 1)
    const { promise, resolve } = Promise.withResolvers<void>()
    let waiters = this.#byIp.get(ip)
    if (!waiters) this.#byIp.set(ip, (waiters = new Set()))
    const all = waiters
    const waiter: Waiter = {
      wake: () => {
        clearTimeout(timer)
        if (all.delete(waiter)) this.#left(podUid)
        if (all.size === 0 && this.#byIp.get(ip) === all) this.#byIp.delete(ip)
        resolve()
      },
    }
    const timer = setTimeout(waiter.wake, timeoutMs)
    all.add(waiter)
    await promise
    return true
  }

  wake(ips: Iterable<string>): void {
    if (this.#waiting === 0) return
    // A set may lose members while it is gone through: each waiter takes itself out.
    for (const ip of ips) for (const waiter of this.#byIp.get(ip) ?? []) waiter.wake()
  }

  #left(podUid: string): void {
    this.#waiting--
    const left = this.#ofPods.get(podUid)! - 1
    if (left > 0) this.#ofPods.set(podUid, left)
    else this.#ofPods.delete(podUid)
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
