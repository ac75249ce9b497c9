/** One report on the wire. */
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import type { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { ReportService } from '../../lib/proto/gen/culvert/v1/report_pb.js'
import { bearer, type Channel } from './channel.ts'
import type { NoticeBatch } from './notices.ts'

/** Whom to tell, and who tells. */
export interface ReportCall {
  channel: Channel
  /** Called for each report. */
  token: () => string | Promise<string>
  /** Differs from one start of the agent to the next. */
  instance: string
  startedAtMs: number
  timeoutMs: number
}

export interface ReportedPod {
  readonly uid: string
  readonly namespace: string
  readonly name: string
}

/** What is said of a pod. */
export interface Word extends ReportedPod {
  readonly state: PodState
  readonly detail: string
  readonly observedAtMs: number
}

export interface Report {
  readonly words: Iterable<Word>
  /** The words are about every pod there is. */
  readonly full: boolean
  readonly notices: NoticeBatch
}

/** Gives the number of pods that the server does not know. Rejects with what the call fails with. */
export async function sendReport(
  { channel, token, instance, startedAtMs, timeoutMs }: ReportCall,
  { words, full, notices: { refusals, repairs } }: Report,
  signal: AbortSignal,
): Promise<number> {
  const transport = channel.transport
  try {
    const answer = await createClient(ReportService, transport).report(
      {
        instance,
        startedAtMs: BigInt(startedAtMs),
        full,
        pods: Array.from(words, ({ uid, observedAtMs, ...rest }) => ({
          ...rest,
          podUid: uid,
          observedAtMs: BigInt(observedAtMs),
        })),
        refusals: refusals.map(({ direction, ...rest }) => ({ ...rest, outbound: direction === 'outbound' })),
        repairs: [...repairs],
      },
      { headers: { authorization: await bearer(token) }, timeoutMs, signal },
    )
    return answer.unknownPods.length
  } catch (err) {
    if (err instanceof ConnectError && err.code === Code.DeadlineExceeded) channel.distrust(transport)
    throw err
  }
}
