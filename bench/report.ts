/**
 * A run as a table on a terminal: a row a metric, a column an arm, how ours stands to ztunnel and to no mesh at all,
 * and whether that is what it was to be. Fits 120 columns; what did not run is named below with the reason.
 */
import { stripVTControlCharacters, styleText } from 'node:util'
import { printable } from '../lib/printable.ts'
import type { ArmInfo, BenchRun, MicroResult, Series } from './model.ts'
import {
  bound,
  bytes,
  count,
  duration,
  figure,
  fromTo,
  NO_FIGURE,
  plusMinus,
  roundsText,
  times,
} from './report-numbers.ts'
import {
  armsInOrder,
  gapsOf,
  OURS,
  summarise,
  type Base,
  type MetricSummary,
  type Verdict,
} from './report-summary.ts'
import { spreadOf } from './stats.ts'

const WIDTH = 120
const GAP = '  '
const SHORTEST_TITLE = 16

type Style = Parameters<typeof styleText>[0]
type Paint = (style: Style, text: string) => string

/** A row of texts; `undefined` draws a line. */
type Row = readonly string[] | undefined

/**
 * The run as text, with a line feed at its end.
 * @param colour whether to write escape sequences for colours
 */
export function renderTable(run: BenchRun, colour: boolean): string {
  const paint: Paint = (style, text) => (colour ? styleText(style, text, { validateStream: false }) : text)
  const parts = [
    machineLines(run, paint),
    run.metrics.length > 0 ? metricLines(run, paint) : [],
    run.micro && run.micro.length > 0 ? microLines(run.micro, paint) : [],
    run.series && run.series.length > 0 ? seriesLines(run.series, paint) : [],
  ]
  return `${parts
    .filter(lines => lines.length > 0)
    .map(lines => lines.join('\n'))
    .join('\n\n')}\n`
}

function machineLines(run: BenchRun, paint: Paint): string[] {
  const { machine } = run
  const took = Date.parse(run.finishedAt) - Date.parse(run.startedAt)
  const what = [
    `${machine.cores} × ${printable(machine.cpu, 60)}`,
    bytes(machine.memoryBytes),
    `Linux ${printable(machine.kernel, 40)}`,
    `Node ${printable(machine.node, 20)}`,
    printable(machine.os, 40),
  ]
  const when = [
    `commit ${printable(run.commit).slice(0, 12)}${run.isDirty ? ' and changes' : ''}`,
    `${run.rounds} ${run.rounds === 1 ? 'round' : 'rounds'}`,
    `${printable(run.startedAt, 30)}, ${duration(took)}`,
    `load ${machine.loadAtStart.toFixed(2)} at the start`,
  ]
  const lines = [paint('bold', 'culvert bench'), what.join(' · '), when.join(' · ')]
  if (isBusy(run))
    lines.push(paint('yellow', 'the machine was busy when the run began: do not trust these figures'))
  return lines
}

/** Reports whether others had the machine when the run began. */
export function isBusy({ machine }: BenchRun): boolean {
  return machine.loadAtStart > machine.cores / 2
}

function metricLines(run: BenchRun, paint: Paint): string[] {
  const arms = armsInOrder(run).filter(arm => arm.missing === undefined)
  const summaries = summarise(run)
  const bases = (['ztunnel', 'none'] as const).filter(base =>
    summaries.some(summary => summary.arms.get(OURS)?.ratios.has(base)),
  )
  const hasVerdict = summaries.some(summary => summary.verdict)
  const head = [
    'median of rounds',
    '',
    ...arms.map(arm => (arm.name === OURS ? paint('bold', arm.name) : arm.name)),
    ...bases.map(base => `/${base}`),
    ...(hasVerdict ? ['target'] : []),
  ]
  const rows = summaries.map(summary => [
    titleOf(summary),
    printable(summary.metric.unit, 12),
    ...arms.map(arm => cell(summary, arm, paint)),
    ...bases.map(base => ratioCell(summary, base, paint)),
    ...(hasVerdict ? [verdictCell(summary.verdict, summary.metric.unit, paint)] : []),
  ])
  const notes = [
    paint('dim', '±m%: m is half of the way from the lowest round to the highest, in percent of the median.'),
    paint('dim', `/ztunnel, /none: ${OURS} through it, the median of the ratios within each round.`),
  ]
  return [...table([head, undefined, ...rows], 2), '', ...notes, ...missingLines(run, paint)]
}

function titleOf({ metric }: MetricSummary): string {
  const mark = metric.better === 'higher' ? '↑' : '↓'
  return `${mark} ${printable(metric.title, 60)}`
}

function cell({ arms }: MetricSummary, arm: ArmInfo, paint: Paint): string {
  const result = arms.get(arm.name)
  if (!result) return paint('dim', NO_FIGURE)
  const { spread } = result
  const text = figure(spread.median)
  const around = plusMinus(spread).padStart(5) // so that the medians stand below each other
  return `${arm.name === OURS ? paint('bold', text) : text}${paint('dim', around)}`
}

function ratioCell({ metric, arms }: MetricSummary, base: Base, paint: Paint): string {
  const ratio = arms.get(OURS)?.ratios.get(base)?.median
  if (ratio === undefined) return paint('dim', NO_FIGURE)
  const text = times(ratio)
  if (base !== 'ztunnel' || ratio === 1) return text
  return paint(ratio > 1 === (metric.better === 'higher') ? 'green' : 'yellow', text)
}

function verdictCell(verdict: Verdict | undefined, unit: string, paint: Paint): string {
  if (!verdict) return ''
  const text = bound(verdict.target, printable(unit, 16))
  return verdict.isReached ? paint('green', `✓ ${text}`) : paint('red', `✗ ${text}`)
}

/** Whatever was to be measured and was not, with the reason. */
function missingLines(run: BenchRun, paint: Paint): string[] {
  const titleOf = (id: string) => run.metrics.find(metric => metric.id === id)?.title ?? id
  const arms = armsInOrder(run).filter(arm => arm.missing !== undefined)
  const metrics = run.metrics.filter(metric => metric.missing !== undefined)
  const lines = [
    ...arms.map(({ name, missing = '' }) => `${name} did not run: ${printable(missing, 400)}`),
    ...metrics.map(
      ({ title, missing = '' }) => `${printable(title, 60)}: nobody: ${printable(missing, 400)}`,
    ),
    ...gapsOf(run).map(
      ({ arm, metric, rounds, why }) =>
        `${printable(titleOf(metric), 60)}: ${arm} not in ${roundsText(rounds, run.rounds)}: ${printable(why, 400)}`,
    ),
  ]
  return lines.map(line => paint('yellow', line))
}

function microLines(results: readonly MicroResult[], paint: Paint): string[] {
  const rows = results.map(result => {
    const { samples, opsPerSecond, memory } = result
    return [
      printable(result.title, 70),
      `${figure(opsPerSecond)}${samples.length > 0 ? paint('dim', plusMinus(spreadOf(samples)).padStart(6)) : ''}`,
      samples.length > 0 ? paint('dim', fromTo(spreadOf(samples))) : NO_FIGURE,
      opsPerSecond > 0 ? each(opsPerSecond) : NO_FIGURE,
      memory ? `${bytes(memory.keptBytes)} kept, ${bytes(memory.peakBytes)} peak` : '',
    ]
  })
  const head = ['micro', 'per second', 'from – to', 'each', 'memory']
  const hasMemory = results.some(result => result.memory)
  const width = hasMemory ? head.length : head.length - 1
  return table([head.slice(0, width), undefined, ...rows.map(row => row.slice(0, width))])
}

/** What one of so many a second takes. */
function each(perSecond: number): string {
  const ns = 1e9 / perSecond
  if (ns < 1000) return `${figure(ns)} ns`
  return ns < 1e6 ? `${figure(ns / 1000)} µs` : `${figure(ns / 1e6)} ms`
}

function seriesLines(series: readonly Series[], paint: Paint): string[] {
  return series.flatMap((one, at) => [
    ...(at > 0 ? [''] : []),
    paint(
      'bold',
      [one.title, one.unit]
        .filter(Boolean)
        .map(text => printable(text, 90))
        .join(', '),
    ),
    ...(one.points.length > 0 ? pointLines(one) : [paint('yellow', printable(one.about, 400))]),
  ])
}

function pointLines({ points, xLabel, yLabel }: Series): string[] {
  const columns = [...new Set(points.map(point => point.x))].toSorted((a, b) => a - b)
  const rows = [...new Set(points.map(point => point.arm))].map(arm => [
    printable(arm ?? yLabel, 40),
    ...columns.map(x => {
      const found = points.findLast(point => point.x === x && point.arm === arm)
      return found ? figure(found.y) : NO_FIGURE
    }),
  ])
  return table([[printable(xLabel, 40), ...columns.map(x => count(x))], undefined, ...rows])
}

/** Columns as wide as their widest cell, the first `left` set to the left; the first wraps so that the whole fits. */
function table(rows: readonly Row[], left = 1): string[] {
  const filled = rows.filter(row => row !== undefined)
  const count = Math.max(...filled.map(row => row.length))
  const widths = Array.from({ length: count }, (_, at) =>
    Math.max(...filled.map(row => lengthOf(row[at] ?? ''))),
  )
  const over = totalOf(widths) - WIDTH
  if (over > 0) widths[0] = Math.max(SHORTEST_TITLE, widths[0]! - over)
  return rows.flatMap(row => {
    if (!row) return '─'.repeat(totalOf(widths))
    const [title = '', ...more] = wrap(row[0] ?? '', widths[0]!)
    const cells = [title, ...row.slice(1)].map((text, at) =>
      at < left ? text + blanks(text, widths[at]!) : blanks(text, widths[at]!) + text,
    )
    return [cells.join(GAP).trimEnd(), ...more.map(line => `  ${line}`)]
  })
}

function totalOf(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width + GAP.length, -GAP.length)
}

/** Lines of whole words; all but the first are two shorter, for they are set in. A long word stands over. */
function wrap(text: string, width: number): string[] {
  if (lengthOf(text) <= width) return [text]
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const room = lines.length > 1 ? width - 2 : width
    const last = lines.at(-1)
    if (last !== undefined && lengthOf(last) + 1 + lengthOf(word) <= room)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}

function blanks(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - lengthOf(text)))
}

function lengthOf(text: string): number {
  return stripVTControlCharacters(text).length
}
