/**
 * A cancellation for hot paths. Node's `AbortSignal` costs ten microseconds a connection (events, weak references, one
 * more of everything for `any` and `timeout`); this is the part of it that is used. An `AbortSignal` will do wherever a
 * `Cancellation` is asked for.
 */
export interface Cancellation {
  readonly aborted: boolean
  /** Undefined until it is aborted. */
  readonly reason: Error | undefined
  throwIfAborted(): void
  addEventListener(type: 'abort', listener: () => void, options?: { once: boolean }): void
  removeEventListener(type: 'abort', listener: () => void): void
}

export class Cancel implements Cancellation {
  aborted = false
  reason: Error | undefined
  #listeners: ((() => void) | undefined)[] = []

  /** `before`: aborts this one too. */
  constructor(before?: Cancellation) {
    if (!before) return
    if (before.aborted) this.abort(before.reason)
    else before.addEventListener('abort', () => this.abort(before.reason), { once: true })
  }

  /** Tells everyone who listens, once; not who is removed by one that was told before. */
  abort(reason: Error | undefined): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    for (let at = 0; at < this.#listeners.length; at++) this.#listeners[at]?.()
    this.#listeners = []
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason ?? new Error('aborted')
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    if (!this.aborted) this.#listeners.push(listener)
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const at = this.#listeners.indexOf(listener)
    if (at < 0) return
    if (this.aborted) this.#listeners[at] = undefined
    else this.#listeners.splice(at, 1)
  }
}
