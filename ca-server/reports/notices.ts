/** What happened to pods, as agents report it beside their states: to be told to people, changes nothing. */
import { Code, ConnectError } from '@connectrpc/connect'
import { printable } from '../../lib/printable.ts'
import type { ReportRequest } from '../../lib/proto/gen/culvert/v1/report_pb.js'

export interface RefusalNotice {
  readonly podUid: string
  readonly reason: string
  readonly outbound: boolean
  readonly peer: string
  readonly port: number
  readonly count: number
}

export interface RepairNotice {
  readonly podUid: string
  readonly what: string
  readonly by: string
  readonly count: number
}

/** The node is from the token: what is said of pods elsewhere is not to be believed. */
export interface Notices {
  readonly node: string
  readonly refusals: readonly RefusalNotice[]
  readonly repairs: readonly RepairNotice[]
}

const MOST = 1000
const LONGEST = 300

/** Throws an `invalid_argument` ConnectError. */
export function readNotices(node: string, { refusals, repairs }: ReportRequest): Notices {
  if (refusals.length > MOST || repairs.length > MOST)
    throw new ConnectError(`a report tells at most ${MOST} refusals and repairs`, Code.InvalidArgument)
  return {
    node,
    refusals: refusals.map(({ podUid, reason, outbound, peer, port, count }) => ({
      podUid,
      reason,
      outbound,
      peer: printable(peer, LONGEST),
      port,
      count,
    })),
    repairs: repairs.map(({ podUid, what, by, count }) => ({
      podUid,
      what: printable(what, LONGEST),
      by: printable(by, LONGEST),
      count,
    })),
  }
}
