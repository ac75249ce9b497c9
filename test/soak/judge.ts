/** Whether what was seen is in order. Every sentence is about something that is not. */
import type { Deed } from './deeds.ts'
import type { AtRest, Sample } from './samples.ts'
import type { TrafficFailure } from './traffic.ts'

/** A kill is noted a moment after it happened, and a client that waits for its turn hears of it a moment later. */
const NOTED_WITHIN_MS = 2000
/** A timer of a busy machine. */
const CUT_EARLY_MS = 700
/**
 * Sessions between the pods stay open for a while after their last stream, a few for each pair of pods, and what comes
 * and goes with time (a connection to the ca-server, a scrape) is not the same at both moments.
 */
const MORE_DESCRIPTORS = 24
const MORE_THREADS = 4
/** Of a process's life: its caches fill, its heap finds its size. */
const WARM_UP_MS = 60_000
const WARM_UP_PART = 0.3
/** Less than this says nothing about growth. */
const ENOUGH_MS = 60_000
const MIB = 1024 * 1024
/** A heap under load moves between a few sizes, and the straight line with it. */
const MAX_GROWTH_BYTES = 24 * MIB
const MAX_GROWTH_PART = 0.2

/** Reports whether a disturbance accounts for the failure: the connection was open, and through that agent's hands. */
export function isExplained(
  { startedAtMs, failedAtMs }: TrafficFailure,
  deeds: readonly Deed[],
  drainMs: number,
): boolean {
  return deeds.some(({ kind, struckAtMs, endedAtMs }) => {
    if (kind === 'kill-agent')
      return (
        startedAtMs <= struckAtMs &&
        failedAtMs >= struckAtMs - NOTED_WITHIN_MS &&
        failedAtMs <= struckAtMs + NOTED_WITHIN_MS
      )
    if (kind !== 'replace-agent') return false
    // The old agent takes no new connection from the moment on that its grace begins.
    const livedMs = failedAtMs - startedAtMs
    return (
      livedMs >= drainMs - CUT_EARLY_MS &&
      failedAtMs >= struckAtMs &&
      failedAtMs <= endedAtMs + NOTED_WITHIN_MS
    )
  })
}

/** One process from its warm-up to its end: where a straight line through its memory begins and ends. */
export interface Trend {
  readonly part: string
  readonly pid: number
  readonly fromMs: number
  readonly toMs: number
  readonly fromBytes: number
  readonly toBytes: number
}

/** The trends of every process that lived long enough. */
export function trendsOf(samples: readonly Sample[]): Trend[] {
  const byProcess = Map.groupBy(samples, ({ part, pid }) => `${part} ${pid}`)
  return [...byProcess.values()].flatMap(all => {
    const { part, pid, atMs: bornAtMs } = all[0]!
    const warmUpMs = Math.max(WARM_UP_MS, (all.at(-1)!.atMs - bornAtMs) * WARM_UP_PART)
    const warm = all.filter(({ atMs }) => atMs >= bornAtMs + warmUpMs)
    const fromMs = warm[0]?.atMs ?? 0
    const toMs = warm.at(-1)?.atMs ?? 0
    if (toMs - fromMs < ENOUGH_MS) return []
    const line = straightLine(warm.map(({ atMs, rssBytes }) => [atMs, rssBytes]))
    return [{ part, pid, fromMs, toMs, fromBytes: line(fromMs), toBytes: line(toMs) }]
  })
}

/** Least squares. */
export function straightLine(points: readonly (readonly [x: number, y: number])[]): (x: number) => number {
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length
  let covariance = 0
  let variance = 0
  for (const [x, y] of points) {
    covariance += (x - meanX) * (y - meanY)
    variance += (x - meanX) ** 2
  }
  const slope = variance === 0 ? 0 : covariance / variance
  return x => meanY + slope * (x - meanX)
}

export function growthProblems(trends: readonly Trend[]): string[] {
  return trends.flatMap(({ part, pid, fromMs, toMs, fromBytes, toBytes }) => {
    if (toBytes - fromBytes <= Math.max(MAX_GROWTH_BYTES, fromBytes * MAX_GROWTH_PART)) return []
    const seconds = Math.round((toMs - fromMs) / 1000)
    return `${part} (${pid}) grew by ${mib(toBytes - fromBytes)} in ${seconds} s: from ${mib(fromBytes)} to ${mib(toBytes)}`
  })
}

export function leakProblems(start: AtRest, end: AtRest): string[] {
  const problems: string[] = []
  const compare = (what: string, now: number, then: number, more: number) => {
    if (now > then + more) problems.push(`${what}: ${now} at the end, ${then} at the start`)
  }
  compare('processes in the pods and nodes', end.processes, start.processes, 0)
  compare('network namespaces', end.namespaces, start.namespaces, 0)
  for (const [part, now] of Object.entries(end.parts)) {
    const then = start.parts[part]
    if (!then) continue
    compare(`threads of ${part}`, now.threads, then.threads, MORE_THREADS)
    compare(`open connections of ${part}`, now.connections, 0, 0)
    compare(`descriptors of ${part}`, now.descriptors, then.descriptors, MORE_DESCRIPTORS)
    for (const [kind, count] of Object.entries(now.kinds))
      if (kind !== 'socket') compare(`${kind} open in ${part}`, count, then.kinds[kind] ?? 0, MORE_THREADS)
  }
  for (const part of Object.keys(start.parts))
    if (!end.parts[part]) problems.push(`${part} does not run at the end`)
  return problems
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`
}
