/** Which failures of the API server pass by themselves, and waiting for them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Backoff } from '../../lib/backoff.ts'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { ApiError, TooLongError } from './api-client.ts'

/**
 * Reports whether the same request may be answered otherwise later on: nobody answered, or somebody with too much to
 * do. Whom the server does not know (401) it may know when its keys or our token have been replaced.
 */
export function mayPass(err: unknown): boolean {
  if (err instanceof TooLongError) return false
  if (!(err instanceof ApiError)) return true
  return err.status >= 500 || [0, 401, 408, 429].includes(err.status)
}

/** Reports whether the server's answer was this status. */
export function hasStatus(err: unknown, status: number): boolean {
  return err instanceof ApiError && err.status === status
}

/** Waits before the next try: longer each time, and as long as the server asked. Ends early when the signal aborts. */
export async function waitAfter(failure: unknown, backoff: Backoff, signal: AbortSignal): Promise<void> {
  const askedMs = failure instanceof ApiError ? failure.retryAfterMs : 0
  await sleep(Math.max(backoff.next(), askedMs), undefined, { signal }).catch(() => undefined)
}

export interface PersistOptions {
  /** Continues `cannot …`. */
  readonly what: string
  readonly backoff: Backoff
  readonly log: Logger
  readonly signal: AbortSignal
}

/**
 * Tries until it works. What will not pass is thrown, but for `forbidden`: roles may be given after the start. Throws
 * what happened last when the signal aborts.
 */
export async function persist<T>(
  work: () => Promise<T>,
  { what, backoff, log, signal }: PersistOptions,
): Promise<T> {
  for (;;) {
    try {
      return await work()
    } catch (err) {
      if (signal.aborted || !(mayPass(err) || hasStatus(err, 403))) throw err
      log.warn({ err: errorText(err) }, `cannot ${what}, trying again`)
      await waitAfter(err, backoff, signal)
      if (signal.aborted) throw err
    }
  }
}
