/** Waiting for a state of the cluster: looked at again and again, because that needs nothing but the right to read. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError } from '../../lib/errors.ts'

export interface PollOptions {
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** @default 500 */
  readonly everyMs?: number
}

/** What there is to say of a state: undefined when it is the one that was waited for. */
export type Look = () => Promise<string | undefined>

/** Looks until there is nothing left to wait for. Throws `TIMEOUT` with what was seen last. */
export async function pollUntil(
  what: string,
  look: Look,
  { timeoutMs, signal, everyMs = 500 }: PollOptions,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const pending = await look()
    if (pending === undefined) return
    if (performance.now() >= deadline)
      throw new CulvertError('TIMEOUT', `${what}: not so after ${Math.round(timeoutMs / 1000)} s: ${pending}`)
    await sleep(everyMs, undefined, { signal })
  }
}
