/**
 * Refused connections that somebody beside this node should hear of, counted by who was refused what: by pod, reason,
 * peer and port. Whoever calls chooses how many of those there are, so they are bounded: beyond the cap a pod's are
 * counted together. Told now and then, as increments.
 */
import type { RefusedReason } from '../../lib/reasons.ts'
import type { ConnectionRecord } from './messages.ts'

/** Not what could not be reached, which the application sees, nor what the other side refused and tells itself. */
const TOLD: Readonly<Record<ConnectionRecord['direction'], ReadonlySet<string>>> = {
  inbound: new Set<RefusedReason>(['strict', 'policy', 'identity']),
  outbound: new Set<RefusedReason>(['strict', 'identity']),
}

export interface RefusalCount {
  readonly podUid: string
  readonly direction: ConnectionRecord['direction']
  readonly reason: string
  /** `namespace/name` of the other end, its address where that is not known; `others` for many. */
  readonly peer: string
  /** Of the destination; 0 for many. */
  readonly port: number
  readonly count: number
}

export const OTHERS = { peer: 'others', port: 0 } as const

type Refused = Pick<ConnectionRecord, 'podUid' | 'direction' | 'reason' | 'source' | 'destination'>

export class Refusals {
  readonly #most: number
  readonly #counts = new RefusalCounts()

  constructor(most = 256) {
    this.#most = most
  }

  /** A connection has ended. */
  closed({ podUid, direction, reason, source, destination }: Refused): void {
    if (!TOLD[direction].has(reason)) return
    const other = direction === 'inbound' ? source : destination
    const { namespace, workload, ip } = other
    const peer = workload === undefined ? ip : `${namespace ?? ''}/${workload}`
    this.#counts.add({ podUid, direction, reason, peer, port: destination.port, count: 1 }, this.#most)
  }

  /** What has been counted since the last call. */
  take(): RefusalCount[] {
    return this.#counts.take()
  }
}

/** Counts by everything but the number. */
export class RefusalCounts {
  #counts = new Map<string, RefusalCount>()

  get size(): number {
    return this.#counts.size
  }

  /** With `most` kinds there are no new ones but those of the pod's others. */
  add(refusal: RefusalCount, most: number): void {
    const known = this.#counts.get(keyOf(refusal))
    const kind = known || this.#counts.size < most ? refusal : { ...refusal, ...OTHERS }
    const key = keyOf(kind)
    const before = this.#counts.get(key)
    this.#counts.set(key, { ...kind, count: (before?.count ?? 0) + refusal.count })
  }

  take(): RefusalCount[] {
    const counts = [...this.#counts.values()]
    this.#counts = new Map()
    return counts
  }
}

function keyOf({ podUid, direction, reason, peer, port }: RefusalCount): string {
  return `${podUid} ${direction} ${reason} ${peer} ${port}`
}
