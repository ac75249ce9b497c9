/** How a session came to its end, in words of which there are few: they become the labels of a metric. */
import type { LimitName } from './limits.ts'
import { CODE, SessionError, codeName } from './protocol.ts'

/** Which end of its sessions this is: the one that opens streams, or the one that answers. */
export type Side = 'client' | 'server'

export interface SessionEnd {
  /** Who ended it: this side, the peer, or neither (the connection was lost). */
  readonly by: 'us' | 'peer' | 'network'
  /** The code of the GOAWAY by name, `NO_ERROR` after an orderly end; `other` for one nobody defined, `none` without any. */
  readonly code: string
  /** The limit that the peer went over, or `none`. */
  readonly limit: LimitName | 'none'
}

/** Why a stream was not served: a limit, a message that is none, or a session that is closing. */
export type Refusal = 'maxConcurrentStreams' | 'maxHeaderList' | 'malformed' | 'goaway'

/** Counts. Neither method may throw. */
export interface SessionObserver {
  /** Told once for each session. */
  ended(side: Side, end: SessionEnd): void
  /** A server did not take a request, or a client its answer. */
  refused(side: Side, why: Refusal): void
}

/**
 * Names the end of a session that `by` closed with `error`. `peerCode` is what the peer's GOAWAY said, if there was one:
 * with an error in it, the peer ended the session, whoever closed the connection then.
 */
export function sessionEnd(
  by: SessionEnd['by'],
  error: Error | undefined,
  peerCode: number | undefined,
): SessionEnd {
  if (error instanceof SessionError)
    return { by: 'us', code: codeName(error.h2Code), limit: error.limit ?? 'none' }
  if (peerCode !== undefined && peerCode !== CODE.noError)
    return { by: 'peer', code: peerCode <= CODE.http11Required ? codeName(peerCode) : 'other', limit: 'none' }
  return { by, code: error ? 'none' : codeName(CODE.noError), limit: 'none' }
}
