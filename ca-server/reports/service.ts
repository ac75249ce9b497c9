/** `Report`: what agents observed of their pods, taken from the wire. */
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect'
import { create } from '@bufbuild/protobuf'
import type { Logger } from '../../lib/log.ts'
import { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  ReportResponseSchema,
  type PodReport,
  type ReportRequest,
  type ReportService,
} from '../../lib/proto/gen/culvert/v1/report_pb.js'
import { callerOf, nodeOf, type Calls } from '../calls.ts'
import type { Metrics } from '../metrics.ts'
import { readNotices, type Notices } from './notices.ts'
import type { AgentReport, Observed, PodStatement } from './observed.ts'
import type { ObservedState } from './store.ts'

export interface ReportOptions {
  readonly observed: Observed
  /** Takes what happened to pods of the caller's node. */
  readonly noticed?: ((notices: Notices) => void) | undefined
  readonly isSynced: () => boolean
  readonly calls: Calls
  readonly metrics: Metrics
  readonly log: Logger
}

const MAX_PODS = 10_000
const MAX_TEXT = 300

const STATES: ReadonlyMap<PodState, ObservedState> = new Map([
  [PodState.PENDING, 'pending'],
  [PodState.ENROLLED, 'enrolled'],
  [PodState.DRIFTED, 'drifted'],
  [PodState.NOT_ENROLLED, 'not-enrolled'],
])

export function reportService(options: ReportOptions): ServiceImpl<typeof ReportService> {
  const { observed, noticed, isSynced, calls, metrics, log } = options
  return {
    async report(request, context) {
      try {
        const node = nodeOf(callerOf(context))
        // Until the pods are known nothing can be checked; the agent comes again.
        if (!isSynced()) throw new ConnectError('the cluster is not known yet', Code.Unavailable)
        const report = readReport(node, request)
        const notices = readNotices(node, request)
        const { believed, unknownPods } = await observed.report(report)
        metrics.reports.inc({ result: believed ? 'taken' : 'outdated' })
        if (believed) noticed?.(notices)
        else log.info({ node, instance: report.instance }, 'report of an outdated agent ignored')
        if (unknownPods.length > 0)
          log.debug(
            { node, pods: unknownPods.slice(0, 10) },
            'report names pods that are not known on its node',
          )
        return create(ReportResponseSchema, { unknownPods: [...unknownPods] })
      } catch (err) {
        metrics.reports.inc({ result: 'failed' })
        throw calls.refused(err, context, {})
      }
    },
  }
}

/** Throws an `invalid_argument` ConnectError: the caller is trusted, so it may know what is wrong. */
function readReport(node: string, request: ReportRequest): AgentReport {
  const { instance, startedAtMs, full, pods } = request
  if (instance === '' || instance.length > MAX_TEXT)
    throw new ConnectError('instance must be a short text', Code.InvalidArgument)
  if (pods.length > MAX_PODS)
    throw new ConnectError(`a report names at most ${MAX_PODS} pods`, Code.InvalidArgument)
  return { node, instance, startedAtMs: Number(startedAtMs), full, pods: pods.map(readPod) }
}

function readPod(pod: PodReport, at: number): PodStatement {
  const state = STATES.get(pod.state)
  if (pod.podUid === '' || pod.podUid.length > MAX_TEXT)
    throw new ConnectError(`pods[${at}].pod_uid must be a short text`, Code.InvalidArgument)
  if (!state) throw new ConnectError(`pods[${at}].state is not a state`, Code.InvalidArgument)
  return { podUid: pod.podUid, state, detail: printable(pod.detail), observedAtMs: Number(pod.observedAtMs) }
}

/** One short line without control characters: it is shown to people. */
function printable(text: string): string {
  return text
    .slice(0, MAX_TEXT)
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim()
}
