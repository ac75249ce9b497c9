/**
 * The report's pictures, as SVG to stand inside the page, whose style sheet gives them their colours. Every picture has
 * a title for who cannot see it, every point one for who points at it. All rounds are drawn.
 */
import { markup, type Markup } from './html-markup.ts'
import type { ArmName, Series } from './model.ts'
import { count, figure, times } from './report-numbers.ts'
import type { ArmResult, MetricSummary } from './report-summary.ts'
import { fittingScale, linearScale, logScale, type Scale } from './svg-scale.ts'

const WIDTH = 460
const LABELS = 66
const FIGURES = 58
const ROW = 34
const AXIS = 26

/** A row an arm, a dot a round, a bar at the median; the axis begins at 0 unless the values are too far apart. */
export function dotPlot({ metric, arms }: MetricSummary): Markup {
  const results = [...arms.values()]
  const all = results.flatMap(({ rounds }) => [...rounds.values()])
  const scale = fittingScale(all, LABELS, WIDTH - FIGURES)
  const height = results.length * ROW + AXIS
  const rows = results.map((result, at) => dotRow(result, at * ROW + ROW / 2, scale, metric.unit))
  const title = `${metric.title}, ${metric.unit}: ${results.map(each => `${each.arm} ${figure(each.spread.median)}`).join(', ')}`
  return markup`<svg class="plot" role="img" viewBox="0 0 ${WIDTH} ${height}" aria-label="${title}">
${bottomAxis(scale, results.length * ROW)}
${rows}
</svg>`
}

function dotRow({ arm, rounds, spread }: ArmResult, y: number, scale: Scale, unit: string): Markup {
  const count = rounds.size
  const dots = [...rounds].map(([round, value], at) => {
    // Rounds from top to bottom, so that equal ones do not hide each other.
    const shift = count > 1 ? (at / (count - 1) - 0.5) * 14 : 0
    return markup`<circle cx="${px(scale.at(value))}" cy="${px(y + shift)}" r="3.6"><title>${arm}, round ${round}: ${figure(value)} ${unit}</title></circle>`
  })
  const median = px(scale.at(spread.median))
  return markup`<g class="arm-${arm}">
<text class="name" x="${LABELS - 10}" y="${y}">${arm}</text>
<line class="range" x1="${px(scale.at(spread.min))}" x2="${px(scale.at(spread.max))}" y1="${y}" y2="${y}"/>
${dots}
<line class="median" x1="${median}" x2="${median}" y1="${y - 11}" y2="${y + 11}"/>
<text class="figure" x="${WIDTH}" y="${y}">${figure(spread.median)}</text>
</g>`
}

/** Vertical lines at the marks, with their values below. */
function bottomAxis(scale: Scale, bottom: number): Markup {
  const marks = scale.ticks.map(
    tick => markup`<line x1="${px(scale.at(tick))}" x2="${px(scale.at(tick))}" y1="0" y2="${bottom}"/>
<text x="${px(scale.at(tick))}" y="${bottom + 16}">${tickText(tick, scale)}</text>`,
  )
  return markup`<g class="axis">${marks}</g>`
}

/** How far a strip goes to each side at most: what lies beyond stands hollow at its end. */
const FURTHEST = 4
const STRIP_WIDTH = 300
const STRIP_HEIGHT = 26

/** How far from level the ends of these metrics' strips are, as a factor: as far as ratios go, within reason. */
export function reachOf(summaries: readonly MetricSummary[], arm: ArmName): number {
  const factors = summaries.flatMap(({ arms }) => [
    ...(arms.get(arm)?.ratios.get('ztunnel')?.rounds.values() ?? []),
  ])
  const furthest = Math.max(
    1,
    ...factors.filter(factor => factor > 0).map(factor => Math.max(factor, 1 / factor)),
  )
  return Math.min(FURTHEST, Math.max(2, Math.ceil(furthest)))
}

/**
 * How an arm stands to ztunnel in one metric: a dot a round, a bar at the median, on an axis in powers of which the
 * middle is level and the right is better.
 */
export function ratioStrip({ metric, arms, verdict }: MetricSummary, arm: ArmName, reach: number): Markup {
  const ratio = arms.get(arm)?.ratios.get('ztunnel')
  const middle = STRIP_WIDTH / 2
  const part = (factor: number) =>
    Math.log(metric.better === 'higher' ? factor : 1 / factor) / Math.log(reach)
  const place = (factor: number) => px(middle + Math.max(-1, Math.min(1, part(factor))) * (middle - 6))
  const y = STRIP_HEIGHT / 2
  const wanted = verdict?.target.of === 'ztunnel' ? verdict.target.limit : undefined
  const dots = [...(ratio?.rounds ?? [])].map(
    ([round, factor]) =>
      markup`<circle${Math.abs(part(factor)) > 1 ? BEYOND : undefined} cx="${place(factor)}" cy="${y}" r="3.4"><title>round ${round}: ${times(factor)}</title></circle>`,
  )
  const bar =
    ratio &&
    markup`<line class="median" x1="${place(ratio.median)}" x2="${place(ratio.median)}" y1="3" y2="${STRIP_HEIGHT - 3}"/>`
  const target =
    wanted !== undefined &&
    markup`<path class="target" d="M${place(wanted)} 7 l-4 -6 h8 z"><title>target: ${times(wanted)}</title></path>`
  const said = ratio ? `${metric.title}: ${times(ratio.median)} of ztunnel` : `${metric.title}: not compared`
  return markup`<svg class="strip" role="img" viewBox="0 0 ${STRIP_WIDTH} ${STRIP_HEIGHT}" aria-label="${said}">
<line class="base" x1="0" x2="${STRIP_WIDTH}" y1="${y}" y2="${y}"/>
<line class="level" x1="${middle}" x2="${middle}" y1="0" y2="${STRIP_HEIGHT}"/>
<g class="arm-${arm}">${dots}${bar}</g>${target || undefined}
</svg>`
}

const BEYOND = markup` class="beyond"`

/** All samples of one thing on an axis from 0. */
export function sampleStrip(values: readonly number[], title: string): Markup {
  const scale = linearScale(values, 4, STRIP_WIDTH - 4)
  const dots = values.map(
    value =>
      markup`<circle cx="${px(scale.at(value))}" cy="8" r="4"><title>${figure(value)}</title></circle>`,
  )
  return markup`<svg class="strip" role="img" viewBox="0 0 ${STRIP_WIDTH} 16" aria-label="${title}">
<line class="base" x1="4" x2="${STRIP_WIDTH - 4}" y1="8" y2="8"/><g class="arm-culvert">${dots}</g></svg>`
}

/** How many times the first the last of a series may be: growth is best seen on an even axis. */
const TOO_WIDE = 1000
const LINE_HEIGHT = 210
const LINE_LEFT = 54
const LINE_TOP = 16
const LINE_BOTTOM = LINE_HEIGHT - 42

/** A line an arm through its points; y begins at 0, x is in powers where the points are too far apart. */
export function linePlot(series: Series): Markup {
  const { points } = series
  const xs = points.map(point => point.x)
  const isWide = Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > TOO_WIDE
  const x = (isWide ? logScale : linearScale)(xs, LINE_LEFT, WIDTH - 20)
  const y = linearScale(
    points.map(point => point.y),
    LINE_BOTTOM,
    LINE_TOP,
  )
  const names = [...new Set(points.map(point => point.arm))]
  const lines = names.map((name, at) => seriesLine(series, name, at, x, y, names.length > 1))
  const title = `${series.title}: ${points.map(point => `${count(point.x)} ${series.xLabel}, ${figure(point.y)} ${series.unit}`).join('; ')}`
  return markup`<svg class="plot" role="img" viewBox="0 0 ${WIDTH} ${LINE_HEIGHT}" aria-label="${title}">
<g class="axis">${x.ticks.map(
    tick =>
      markup`<line x1="${px(x.at(tick))}" x2="${px(x.at(tick))}" y1="${LINE_TOP}" y2="${LINE_BOTTOM}"/><text x="${px(x.at(tick))}" y="${LINE_BOTTOM + 16}">${tickText(tick, x)}</text>`,
  )}<text x="${(LINE_LEFT + WIDTH - 20) / 2}" y="${LINE_HEIGHT - 6}">${series.xLabel}</text></g>
<g class="axis side">${y.ticks.map(
    tick =>
      markup`<line x1="${LINE_LEFT}" x2="${WIDTH - 20}" y1="${px(y.at(tick))}" y2="${px(y.at(tick))}"/><text x="${LINE_LEFT - 8}" y="${px(y.at(tick))}">${tickText(tick, y)}</text>`,
  )}</g>
${lines}
</svg>`
}

function seriesLine(
  { points, unit, xLabel }: Series,
  name: string | undefined,
  at: number,
  x: Scale,
  y: Scale,
  isNamed: boolean,
): Markup {
  const own = points.filter(point => point.arm === name).toSorted((a, b) => a.x - b.x)
  const path = own
    .map((point, at) => `${at === 0 ? 'M' : 'L'}${px(x.at(point.x))} ${px(y.at(point.y))}`)
    .join(' ')
  const dots = own.map(
    point =>
      markup`<circle cx="${px(x.at(point.x))}" cy="${px(y.at(point.y))}" r="4"><title>${count(point.x)} ${xLabel}: ${figure(point.y)} ${unit}</title></circle>`,
  )
  const last = own.at(-1)
  const label =
    isNamed && last
      ? markup`<text class="line-name" x="${px(x.at(last.x) - 6)}" y="${px(y.at(last.y) - 10)}">${name ?? ''}</text>`
      : undefined
  return markup`<g class="line ${`line-${at % 4}`}"><path d="${path}"/>${dots}${label}</g>`
}

/** Short, for there is little room along an axis; thousands as `k` all along it or nowhere. */
function tickText(value: number, { isLog, ticks }: Scale): string {
  const largest = ticks.at(-1)!
  if (value === 0) return '0'
  if (largest >= 1e6 && !isLog) return `${trimmed(value / 1e6)}M`
  if (largest >= 10_000 && !isLog) return `${trimmed(value / 1000)}k`
  if (value >= 1e6) return `${trimmed(value / 1e6)}M`
  return value >= 1000 && isLog ? `${trimmed(value / 1000)}k` : Number(trimmed(value)).toLocaleString('en-US')
}

function trimmed(value: number): string {
  return String(Number(value.toPrecision(4)))
}

function px(place: number): string {
  return String(Number(place.toFixed(1)))
}
