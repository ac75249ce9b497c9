/**
 * Before and after: two runs beside each other, metric by metric and arm by arm. A change counts only when it is larger
 * than what either run's own rounds differ by. The machine may have changed, too: how far `none` and `ztunnel` have moved,
 * which are the same programs in both, is taken out of what the others have.
 */
import { stripVTControlCharacters, styleText } from 'node:util'
import { printable } from '../lib/printable.ts'
import { ARM_NAMES, type ArmName, type BenchRun, type MetricInfo } from './model.ts'
import { change, figure, NO_FIGURE, plusMinus } from './report-numbers.ts'
import { BASES, OURS, roundsOf } from './report-summary.ts'
import { geometricMean, relativeRange, spreadOf, type Spread } from './stats.ts'

export type ComparisonVerdict =
  | 'better'
  | 'worse'
  /** Smaller than what the rounds of one of the runs differ by. */
  | 'within-noise'
  /** One of the runs has a single round: nobody knows what its rounds would differ by. */
  | 'spread-unknown'

export interface Comparison {
  /** As the later run describes it. */
  readonly metric: MetricInfo
  readonly arm: ArmName
  readonly before: Spread
  readonly after: Spread
  /** After through before, of the medians. */
  readonly change: number
  /** The same without what the machine did; undefined for the arms that tell what it did, and without them. */
  readonly normalised: number | undefined
  /** Of the normalised change where there is one. */
  readonly verdict: ComparisonVerdict
}

/** Every metric and arm that both runs have, in the later one's order, then the parts measured by themselves. */
export function comparisonsOf(before: BenchRun, after: BenchRun): Comparison[] {
  return [...metricsOf(before, after), ...partsOf(before, after)]
}

/** There is nothing beside a part that would tell what the machine did. */
function partsOf(before: BenchRun, after: BenchRun): Comparison[] {
  return (after.micro ?? []).flatMap(({ id, title, unit = '', samples, about }) => {
    const was = before.micro?.find(part => part.id === id)
    const metric: MetricInfo = { id, title, unit: `${unit}/s`, better: 'higher', command: '', about }
    return comparePair(OURS, was?.samples ?? [], samples).map(pair => ({
      metric,
      ...pair,
      normalised: undefined,
      verdict: verdictOf(metric, pair, pair.change),
    }))
  })
}

function metricsOf(before: BenchRun, after: BenchRun): Comparison[] {
  return after.metrics.flatMap(metric => {
    const known = ARM_NAMES.flatMap(arm => pairOf(before, after, metric.id, arm))
    const drift = known.filter(({ arm }) => BASES.some(base => base === arm)).map(({ change }) => change)
    return known.map(pair => {
      const isBase = BASES.some(base => base === pair.arm)
      const normalised = isBase || drift.length === 0 ? undefined : pair.change / geometricMean(drift)
      return { metric, ...pair, normalised, verdict: verdictOf(metric, pair, normalised ?? pair.change) }
    })
  })
}

type Pair = Pick<Comparison, 'arm' | 'before' | 'after' | 'change'>

function pairOf(before: BenchRun, after: BenchRun, metric: string, arm: ArmName): Pair[] {
  const [was, is] = [before, after].map(run => [...roundsOf(run, metric, arm).values()])
  return comparePair(arm, was!, is!)
}

/** None or one: without samples on both sides, or with a median of 0, there is no ratio. */
function comparePair(arm: ArmName, was: readonly number[], is: readonly number[]): Pair[] {
  if (was.length === 0 || is.length === 0) return []
  const [from, to] = [spreadOf(was), spreadOf(is)]
  if (!(from.median > 0) || !(to.median > 0)) return []
  return [{ arm, before: from, after: to, change: to.median / from.median }]
}

function verdictOf({ better }: MetricInfo, { before, after }: Pair, factor: number): ComparisonVerdict {
  if (before.count < 2 || after.count < 2) return 'spread-unknown'
  const noise = Math.max(relativeRange(before) ?? 0, relativeRange(after) ?? 0)
  // Down by a half is as far as up to the double.
  if (Math.max(factor, 1 / factor) - 1 <= noise) return 'within-noise'
  return factor > 1 === (better === 'higher') ? 'better' : 'worse'
}

const WORDS: Readonly<Record<ComparisonVerdict, string>> = {
  better: 'better',
  worse: 'worse',
  'within-noise': 'within noise',
  'spread-unknown': 'one round only',
}

/**
 * Both runs as text, with a line feed at its end.
 * @param colour whether to write escape sequences for colours. @default false
 */
export function compareRuns(before: BenchRun, after: BenchRun, colour = false): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    colour ? styleText(style, text, { validateStream: false }) : text
  const comparisons = comparisonsOf(before, after)
  const lines = [`before  ${runLine(before)}`, `after   ${runLine(after)}`]
  for (const warning of differencesOf(before, after)) lines.push(paint('yellow', warning))
  if (comparisons.length === 0)
    return `${[...lines, '', 'the runs have nothing measured in common'].join('\n')}\n`

  const head = ['', 'before', 'after', 'change', 'normalised', '']
  const rows = comparisons.map(each => [
    each.arm,
    withSpread(each.before),
    withSpread(each.after),
    change(each.change),
    each.normalised === undefined ? NO_FIGURE : change(each.normalised),
    paint(STYLES[each.verdict], WORDS[each.verdict]),
  ])
  const widths = head.map((name, at) => Math.max(name.length, ...rows.map(row => lengthOf(row[at]!))))
  const line = (cells: readonly string[]) =>
    cells
      .map((text, at) => {
        const blanks = ' '.repeat(widths[at]! - lengthOf(text))
        return at === 0 || at === cells.length - 1 ? text + blanks : blanks + text
      })
      .join('  ')
      .trimEnd()
  lines.push('', `  ${line(head)}`)
  comparisons.forEach(({ metric }, at) => {
    if (comparisons[at - 1]?.metric !== metric)
      lines.push(
        paint(
          'bold',
          `${printable(metric.title, 70)}, ${printable(metric.unit, 16)}, ${metric.better} is better`,
        ),
      )
    lines.push(`  ${line(rows[at]!)}`)
  })
  lines.push(
    '',
    paint(
      'dim',
      'normalised: without what none and ztunnel, the same programs in both runs, have changed by.',
    ),
    paint('dim', 'within noise: not more than the way from lowest to highest round of either run.'),
  )
  return `${lines.join('\n')}\n`
}

const STYLES = { better: 'green', worse: 'red', 'within-noise': 'dim', 'spread-unknown': 'dim' } as const

function runLine({ commit, isDirty, startedAt, rounds, machine }: BenchRun): string {
  const parts = [
    `${printable(commit).slice(0, 12)}${isDirty ? ' and changes' : ''}`,
    printable(startedAt, 30),
    `${rounds} ${rounds === 1 ? 'round' : 'rounds'}`,
    `${machine.cores} × ${printable(machine.cpu, 50)}`,
  ]
  return parts.join(' · ')
}

/** What makes the two hard to compare, one sentence each. */
function differencesOf(before: BenchRun, after: BenchRun): string[] {
  const fields = ['cpu', 'cores', 'kernel', 'node'] as const
  const other = fields.filter(field => before.machine[field] !== after.machine[field])
  if (other.length === 0) return []
  return [
    `not the same machine: ${other.map(field => `${field} ${printable(String(before.machine[field]), 50)} and ${printable(String(after.machine[field]), 50)}`).join(', ')}`,
  ]
}

function withSpread(spread: Spread): string {
  return `${figure(spread.median)}${plusMinus(spread).padStart(5)}`
}

function lengthOf(text: string): number {
  return stripVTControlCharacters(text).length
}
