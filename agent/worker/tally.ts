/**
 * What a data-plane thread counts beside connections: how sessions end, and who is turned away by which limit. The
 * counts are told as increments, by names that carry their labels (see `observe/thread-counters.ts`). Every label has a
 * small set of values: nothing that a peer says becomes one.
 */
import type { Refusal, SessionEnd, SessionObserver, Side } from '../hbone/session-end.ts'
import { TOO_MANY } from '../proxy/pod-context.ts'
import type { ConnectionRecord } from './messages.ts'

/** Why a handshake on the tunnel port came to nothing, by the code of its record; any other code is `failed`. */
const HANDSHAKE_ENDS: ReadonlyMap<string | undefined, string> = new Map([
  ['TOO_MANY_HANDSHAKES', 'gave_way'],
  ['ERR_TLS_HANDSHAKE_TIMEOUT', 'late'],
])

export class Tally implements SessionObserver {
  #counts: Record<string, number> = {}

  ended(side: Side, { by, code, limit }: SessionEnd): void {
    this.#add(
      `hbone_sessions_ended_total{direction="${directionOf(side)}",by="${by}",code="${code}",limit="${limit}"}`,
    )
  }

  refused(side: Side, why: Refusal): void {
    this.#add(`hbone_streams_refused_total{direction="${directionOf(side)}",why="${why}"}`)
  }

  /** A connection has ended, or what was to become one. */
  closed({ direction, reason, error, errorCode }: ConnectionRecord): void {
    if (error === undefined) return
    if (direction === 'inbound' && reason === 'tls')
      this.#add(`hbone_handshakes_failed_total{why="${HANDSHAKE_ENDS.get(errorCode) ?? 'failed'}"}`)
    // Not by its code: that is also what a peer says of its own pod.
    else if (error === TOO_MANY.error)
      this.#add(`connections_refused_total{direction="${direction}",limit="maxConnections"}`)
  }

  /** What has been counted since the last call, by name. */
  take(): Record<string, number> {
    const counts = this.#counts
    this.#counts = {}
    return counts
  }

  #add(name: string): void {
    this.#counts[name] = (this.#counts[name] ?? 0) + 1
  }
}

/** Sessions are known by the direction of the connections that they carry. */
function directionOf(side: Side): ConnectionRecord['direction'] {
  return side === 'server' ? 'inbound' : 'outbound'
}
