/** What the growth of a cluster is measured by, and how it is plotted. */
import type { Series } from './model.ts'

const MIB = 1024 * 1024
/** Programs that only count what the ca-server tells them. */
export const CLIENTS = 20

export interface Timing {
  /** Until a process at rest has given back what its start took. */
  readonly restMs: number
  readonly perSecond: number
  readonly churnSeconds: number
}

/** Of one process. */
export interface Usage {
  readonly restingBytes: number
  readonly largestBytes: number
  /** Of one processor, while nothing happens and while pods are replaced. */
  readonly restingCpu: number
  readonly churnCpu: number
  /** Processor time of the whole churn, ms. */
  readonly churnMs: number
}

export interface Figures {
  readonly pods: number
  readonly serverSyncSeconds: number
  readonly agentReadySeconds: number
  readonly clientsSyncSeconds: number
  readonly server: Usage
  readonly agent: Usage
  readonly largestResponseBytes: number
  /** From a pod's being ready until every client knows, ms. */
  readonly knownMs: { readonly p50: number; readonly p99: number; readonly max: number }
}

export function seriesOf(found: readonly Figures[], { perSecond, churnSeconds }: Timing): Series[] {
  const xLabel = 'pods in the cluster'
  const during = `${perSecond} pods a second were replaced for ${churnSeconds} s`
  const both = (
    of: (usage: Usage) => number,
    resting: string,
    busy: string,
    other: (usage: Usage) => number,
  ) =>
    found.flatMap(({ pods, server, agent }) => [
      { arm: `ca-server ${resting}`, x: pods, y: of(server) },
      { arm: `ca-server ${busy}`, x: pods, y: other(server) },
      { arm: `agent ${resting}`, x: pods, y: of(agent) },
      { arm: `agent ${busy}`, x: pods, y: other(agent) },
    ])
  return [
    {
      id: 'cluster-rss',
      title: 'memory by the size of the cluster',
      xLabel,
      yLabel: 'resident memory',
      unit: 'MiB',
      points: both(
        usage => usage.restingBytes / MIB,
        'at rest',
        'at its largest',
        usage => usage.largestBytes / MIB,
      ),
      about: `The ca-server with ${CLIENTS + 1} clients, and one agent without pods of its own that knows of everything; at their largest from their start until ${during}.`,
    },
    {
      id: 'cluster-cpu',
      title: 'processor time by the size of the cluster',
      xLabel,
      yLabel: 'of one processor',
      unit: '%',
      points: both(
        usage => usage.restingCpu * 100,
        'at rest',
        'under churn',
        usage => usage.churnCpu * 100,
      ),
      about: `Of the same processes, while nothing happened and while ${during}.`,
    },
    {
      id: 'cluster-cost',
      title: 'processor time of a replaced pod by the size of the cluster',
      xLabel,
      yLabel: 'for each pod',
      unit: 'ms',
      points: found.flatMap(({ pods, server, agent }) => [
        { arm: 'ca-server', x: pods, y: server.churnMs / (perSecond * churnSeconds) },
        { arm: 'agent', x: pods, y: agent.churnMs / (perSecond * churnSeconds) },
      ]),
      about: `A replacement is five events of pods and two of slices; the ca-server tells ${CLIENTS + 1} clients of it.`,
    },
    {
      id: 'cluster-known',
      title: 'time until every client knows of a pod',
      xLabel,
      yLabel: 'from ready to known',
      unit: 'ms',
      points: found.flatMap(({ pods, knownMs }) => [
        { arm: 'p50', x: pods, y: knownMs.p50 },
        { arm: 'p99', x: pods, y: knownMs.p99 },
        { arm: 'max', x: pods, y: knownMs.max },
      ]),
      about: `From when the API server says that a new pod is ready until the last of ${CLIENTS} clients has been told, while ${during}.`,
    },
    {
      id: 'cluster-sync',
      title: 'start by the size of the cluster',
      xLabel,
      yLabel: 'until everything is known',
      unit: 's',
      points: found.flatMap(({ pods, serverSyncSeconds, agentReadySeconds, clientsSyncSeconds }) => [
        { arm: 'ca-server', x: pods, y: serverSyncSeconds },
        { arm: 'agent', x: pods, y: agentReadySeconds },
        { arm: `${CLIENTS} clients at once`, x: pods, y: clientsSyncSeconds },
      ]),
      about:
        'From the start of the process until it is ready: the ca-server has listed and published everything, the agent has been told of everything.',
    },
    {
      id: 'cluster-response',
      title: 'largest discovery response',
      xLabel,
      yLabel: 'on the wire',
      unit: 'KiB',
      points: found.map(({ pods, largestResponseBytes }) => ({ x: pods, y: largestResponseBytes / 1024 })),
      about: 'Of all that any client was sent. What gRPC clients take by default is 4,096 KiB.',
    },
  ]
}
