/**
 * `culvert upgrade plan`: which connections a rollout of the agents would cut. No new connection fails then, and open ones
 * go on until the drain period ends; whoever has been open for longer than that already is likely to be cut at its end.
 */
import type { Command } from 'commander'
import { jsonOption, duration, verb } from '../command.ts'
import { note, print, printJson, styled, table } from '../output.ts'
import { parseDurationMs } from '../../lib/settings.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import type { ConnectionRecord } from '../../agent/worker/messages.ts'
import type { AgentAnswer } from './agents.ts'
import { inCluster, outputOption, withCluster, type ClusterOptions } from './session.ts'

interface PlanOptions extends ClusterOptions {
  readonly olderThan?: string
  readonly output: 'text' | 'json'
  readonly json?: boolean
}

export interface Cut {
  readonly node: string
  /** `namespace/workload`, or the address. */
  readonly owner: string
  /** `namespace/name`, or its uid when it has gone. */
  readonly pod: string
  readonly peer: string
  readonly service: string
  readonly reason: string
  readonly ageSeconds: number
  readonly bytes: number
}

export interface UpgradePlan {
  readonly drainSeconds: number
  readonly connections: number
  /** Oldest first. */
  readonly cut: readonly Cut[]
  readonly unasked: readonly { readonly node: string; readonly why: string }[]
}

/** What an agent's drain ends before its grace period does. */
const DRAIN_MARGIN_MS = 5000

export function upgradeCommand(): Command {
  return verb({
    name: 'upgrade',
    summary: 'what an upgrade would do to open connections',
    description: 'An upgrade is another culvert install; this says beforehand what it would cost.',
    examples: [['culvert upgrade plan', 'connections that would be cut']],
  })
    .enablePositionalOptions()
    .addCommand(planVerb())
}

function planVerb(): Command {
  return withCluster(
    verb({
      name: 'plan',
      summary: 'connections that a rollout of the agents would cut',
      description:
        'Asks every agent for its open connections, and lists those that have been open for longer than an agent drains: ' +
        'they will probably be there when the drain period ends, and be reset then. New connections do not fail during a ' +
        'rollout, and open ones that end by themselves do so undisturbed.',
      examples: [
        ['culvert upgrade plan', 'those that are older than the drain period'],
        ['culvert upgrade plan --older-than 0s', 'all that are open'],
        ['culvert upgrade plan -o json', 'for scripts: the owners to ask first'],
      ],
    })
      .option('--older-than <duration>', 'instead of the drain period', duration)
      .addOption(outputOption())
      .addOption(jsonOption()),
  ).action(async (options: PlanOptions) => {
    const plan = await inCluster(options, ({ api }) => planFor(api, options.olderThan))
    if (options.json || options.output === 'json') printJson(plan)
    else print(textOf(plan))
    for (const { node, why } of plan.unasked) note(`culvert: the agent on ${node} could not be asked: ${why}`)
    if (plan.unasked.length > 0) process.exitCode = 1
  })
}

async function planFor(api: KubeApi, olderThan: string | undefined): Promise<UpgradePlan> {
  const [{ agentPods, askAgents }, { AGENTS_PATH }] = await Promise.all([
    import('./agents.ts'),
    import('./rollout.ts'),
  ])
  const pods = await agentPods(api)
  const [connections, all, set] = await Promise.all([
    askAgents<ConnectionRecord[]>(api, pods, '/connections'),
    api.list('/api/v1/pods'),
    api.get<{ spec: { template: { spec: { terminationGracePeriodSeconds?: number } } } }>(AGENTS_PATH),
  ])
  const graceSeconds = set?.spec.template.spec.terminationGracePeriodSeconds ?? 30
  const drainMs = graceSeconds * 1000 - DRAIN_MARGIN_MS
  const olderThanMs = olderThan === undefined ? drainMs : parseDurationMs(olderThan)
  const names = new Map(
    all.map(({ metadata }) => [metadata.uid ?? '', `${metadata.namespace}/${metadata.name}`]),
  )
  return planOf(connections, { drainMs, olderThanMs, nowMs: Date.now(), names })
}

interface PlanContext {
  readonly drainMs: number
  readonly olderThanMs: number
  readonly nowMs: number
  /** Of pods, by uid. */
  readonly names: ReadonlyMap<string, string>
}

/**
 * Each connection once, although the agents of both its ends know of it: the client's own agent tells of it, and the
 * server's where that is nobody of ours.
 */
export function planOf(
  answers: readonly AgentAnswer<readonly ConnectionRecord[]>[],
  { drainMs, olderThanMs, nowMs, names }: PlanContext,
): UpgradePlan {
  const all = answers.flatMap(({ node, value = [] }) => value.map(record => ({ node, record })))
  const told = new Set(all.flatMap(({ record }) => (record.direction === 'outbound' ? [pairOf(record)] : [])))
  const once = all.filter(({ record }) => record.direction === 'outbound' || !told.has(pairOf(record)))
  const cut = once
    .filter(({ record }) => nowMs - record.openedAtMs >= olderThanMs)
    .sort((a, b) => a.record.openedAtMs - b.record.openedAtMs)
    .map(({ node, record }) => cutOf(node, record, nowMs, names))
  return {
    drainSeconds: Math.round(drainMs / 1000),
    connections: once.length,
    cut,
    unasked: answers.flatMap(({ node, problem }) => (problem === undefined ? [] : [{ node, why: problem }])),
  }
}

/** The client's address with its port, which the agent keeps towards the server's side, is not told there: addresses are. */
function pairOf({ source, destination, reason }: ConnectionRecord): string {
  return reason === 'mtls'
    ? `${source.ip} ${destination.ip} ${destination.port}`
    : `${source.ip}:${source.port} ${destination.ip}`
}

function cutOf(
  node: string,
  record: ConnectionRecord,
  nowMs: number,
  names: ReadonlyMap<string, string>,
): Cut {
  const { source, destination, direction, service } = record
  const name = ({ namespace, workload, ip }: ConnectionRecord['source']) =>
    workload === undefined ? ip : namespace === undefined ? workload : `${namespace}/${workload}`
  const [own, other] = direction === 'outbound' ? [source, destination] : [destination, source]
  return {
    node,
    owner: name(own),
    pod: names.get(record.podUid) ?? record.podUid,
    peer: `${name(other)}:${other.port}`,
    service: service === undefined ? '' : `${service.namespace}/${service.name}`,
    reason: record.reason,
    ageSeconds: Math.round((nowMs - record.openedAtMs) / 1000),
    bytes: record.bytesSent + record.bytesReceived,
  }
}

function textOf({ drainSeconds, connections, cut }: UpgradePlan): string {
  const head =
    cut.length === 0
      ? `${connections} connections are open, none for as long as an agent drains (${drainSeconds} s): none would be cut`
      : `${cut.length} of ${connections} open connections would probably be cut at the end of the drain period (${drainSeconds} s):`
  if (cut.length === 0) return head
  const rows = cut.map(({ node, pod, peer, reason, ageSeconds, bytes }) => [
    node,
    pod,
    peer,
    reason,
    ageText(ageSeconds),
    bytesText(bytes),
  ])
  return `${head}\n\n${table([['NODE', 'POD', 'PEER', 'AS', 'AGE', 'BYTES'], ...rows], (cell, column) =>
    column === 1 ? styled('bold', cell) : cell,
  )}`
}

/** `3d4h`, `5h12m`, `7m20s`, `42s` */
export function ageText(seconds: number): string {
  const units = [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const
  const at = units.findIndex(([, size]) => seconds >= size)
  if (at < 0) return '0s'
  const [unit, size] = units[at]!
  const next = units[at + 1]
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0
  return `${Math.floor(seconds / size)}${unit}${rest > 0 && next ? `${rest}${next[0]}` : ''}`
}

function bytesText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let at = -1
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000
    at++
  }
  return `${value.toFixed(1)} ${units[at]}`
}
