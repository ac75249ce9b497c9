/**
 * A run seen metric by metric: what each arm measured, how they stand to each other round by round, and whether a
 * target was reached. Terminal, page and comparison all show these figures.
 */
import { ARM_NAMES, type ArmInfo, type ArmName, type BenchRun, type MetricInfo } from './model.ts'
import { median, ratiosByRound, spreadOf, type Spread } from './stats.ts'
import { TARGETS, type Target } from './targets.ts'

/** The arm that the others are measured for. */
export const OURS = 'culvert' satisfies ArmName
/** What ours is compared with. */
export const BASES = ['ztunnel', 'none'] as const satisfies readonly ArmName[]
export type Base = (typeof BASES)[number]

export interface ArmResult {
  readonly arm: ArmName
  /** Value by number of the round. */
  readonly rounds: ReadonlyMap<number, number>
  readonly spread: Spread
  /** This arm's value through the base's, round by round. Bases without a common round are left out. */
  readonly ratios: ReadonlyMap<Base, Ratio>
}

export interface Ratio {
  readonly rounds: ReadonlyMap<number, number>
  readonly median: number
}

export interface Verdict {
  readonly target: Target
  readonly isReached: boolean
  /** What was judged: a ratio, or the value. */
  readonly figure: number
}

export interface MetricSummary {
  readonly metric: MetricInfo
  /** Of the arms that measured it, in the model's order. */
  readonly arms: ReadonlyMap<ArmName, ArmResult>
  /** Undefined without a target, or without the figures to judge by. */
  readonly verdict: Verdict | undefined
}

/** Every metric of the run, in its order, those nobody measured too. */
export function summarise(run: BenchRun, targets: readonly Target[] = TARGETS): MetricSummary[] {
  return run.metrics.map(metric => {
    const arms = armsOf(run, metric.id)
    return { metric, arms, verdict: verdictOf(run, metric.id, arms, targets) }
  })
}

/** The arms in the model's order, those that did not run too. */
export function armsInOrder(run: BenchRun): ArmInfo[] {
  return ARM_NAMES.flatMap(name => run.arms.find(arm => arm.name === name) ?? [])
}

/** What an arm measured of a metric, by number of the round. */
export function roundsOf(run: BenchRun, metric: string, arm: ArmName): Map<number, number> {
  const samples = run.samples.filter(sample => sample.metric === metric && sample.arm === arm)
  return new Map(samples.map(({ round, value }) => [round, value]))
}

export interface GapSummary {
  readonly arm: ArmName
  readonly metric: string
  readonly rounds: readonly number[]
  readonly why: string
}

/** What could not be measured, rounds with the same reason together. */
export function gapsOf(run: BenchRun): GapSummary[] {
  const found = new Map<string, GapSummary & { rounds: number[] }>()
  for (const { arm, metric, round, why } of run.gaps ?? []) {
    const key = JSON.stringify([arm, metric, why])
    const known = found.get(key)
    if (known) known.rounds.push(round)
    else found.set(key, { arm, metric, rounds: [round], why })
  }
  return [...found.values()]
}

function armsOf(run: BenchRun, metric: string): Map<ArmName, ArmResult> {
  const measured = ARM_NAMES.map(arm => [arm, roundsOf(run, metric, arm)] as const)
  const bases = new Map(measured)
  const results = measured.flatMap(([arm, rounds]) => {
    if (rounds.size === 0) return []
    const ratios = BASES.flatMap(base => {
      if (base === arm) return []
      const ratio = ratioOf(rounds, bases.get(base)!)
      return ratio ? [[base, ratio] as const] : []
    })
    return [{ arm, rounds, spread: spreadOf([...rounds.values()]), ratios: new Map(ratios) }]
  })
  return new Map(results.map(result => [result.arm, result]))
}

function ratioOf(values: ReadonlyMap<number, number>, bases: ReadonlyMap<number, number>): Ratio | undefined {
  const rounds = ratiosByRound(values, bases)
  return rounds.size === 0 ? undefined : { rounds, median: median([...rounds.values()]) }
}

function verdictOf(
  run: BenchRun,
  metric: string,
  arms: ReadonlyMap<ArmName, ArmResult>,
  targets: readonly Target[],
): Verdict | undefined {
  const target = targets.find(each => each.metric === metric)
  const ours = arms.get(OURS)
  if (!target || !ours) return undefined
  const figure = figureOf(run, target, ours)
  if (figure === undefined) return undefined
  const isReached = target.bound === 'at-least' ? figure >= target.limit : figure <= target.limit
  return { target, isReached, figure }
}

function figureOf(run: BenchRun, { of }: Target, ours: ArmResult): number | undefined {
  if (of === 'value') return ours.spread.median
  if (of === 'ztunnel') return ours.ratios.get('ztunnel')?.median
  return ratioOf(ours.rounds, roundsOf(run, of.metric, OURS))?.median
}
