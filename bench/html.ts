/**
 * A run as one page that needs nothing else: style and pictures are in it, no script. Made for who has to believe the
 * figures: every round is drawn and listed, and what was run, on what and with which settings is on the same page.
 */
import { markup, Markup } from './html-markup.ts'
import { STYLE } from './html-style.ts'
import type { ArmInfo, BenchRun, MicroResult, Series } from './model.ts'
import { isBusy } from './report.ts'
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
  type ArmResult,
  type GapSummary,
  type MetricSummary,
} from './report-summary.ts'
import { spreadOf } from './stats.ts'
import { dotPlot, linePlot, ratioStrip, reachOf, sampleStrip } from './svg.ts'

/** The whole page. */
export function renderHtml(run: BenchRun): string {
  const summaries = summarise(run)
  const measured = summaries.filter(({ arms }) => arms.size > 0)
  const title = `Culvert bench, ${run.startedAt.slice(0, 10)}`
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${STYLE_MARKUP}</style>
</head>
<body>
<main>
${head(run, summaries)}
${measured.length > 0 ? overview(measured) : undefined}
${measured.length > 0 ? metricsPart(run, measured) : undefined}
${run.series && run.series.length > 0 ? seriesPart(run.series) : undefined}
${run.micro && run.micro.length > 0 ? microPart(run.micro) : undefined}
${machinePart(run)}
${armsPart(run)}
${samplesPart(run)}
</main>
</body>
</html>
`.text
}

const STYLE_MARKUP = new Markup(STYLE)

function head(run: BenchRun, summaries: readonly MetricSummary[]): Markup {
  const verdicts = summaries.flatMap(({ verdict }) => verdict ?? [])
  const reached = verdicts.filter(({ isReached }) => isReached).length
  const facts = [
    `commit ${run.commit.slice(0, 12)}${run.isDirty ? ' and changes' : ''}`,
    run.startedAt.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'),
    duration(Date.parse(run.finishedAt) - Date.parse(run.startedAt)),
    `${run.rounds} ${run.rounds === 1 ? 'round' : 'rounds'}, arms interleaved`,
    `${run.machine.cores} × ${run.machine.cpu}`,
    `Linux ${run.machine.kernel}`,
    `Node ${run.machine.node}`,
  ]
  const missing = armsInOrder(run).filter(arm => arm.missing !== undefined)
  const unmeasured = run.metrics.filter(metric => metric.missing !== undefined)
  return markup`<h1>Culvert bench</h1>
<p class="facts">${facts.join(' · ')}</p>
${verdicts.length > 0 ? markup`<p><strong>${reached} of ${verdicts.length}</strong> targets reached.</p>` : undefined}
${isBusy(run) ? markup`<p class="notice">The machine was busy when the run began (load ${run.machine.loadAtStart.toFixed(2)}): do not trust these figures.</p>` : undefined}
${missing.map(arm => markup`<p class="notice"><strong>${arm.name}</strong> did not run: ${arm.missing}</p>`)}
${unmeasured.map(({ title, missing }) => markup`<p class="notice"><strong>${title}</strong> was not measured: ${missing}</p>`)}`
}

function overview(summaries: readonly MetricSummary[]): Markup {
  const reach = reachOf(summaries, OURS)
  const rows = summaries.map(summary => {
    const { metric, arms, verdict } = summary
    const ours = arms.get(OURS)
    const theirs = arms.get('ztunnel')
    const [ztunnel, none] = [ours?.ratios.get('ztunnel'), ours?.ratios.get('none')]
    return markup`<tr><th scope="row">${metric.title}, ${metric.unit} ${arrow(summary)}</th>
<td data-label="ztunnel">${theirs ? figure(theirs.spread.median) : NO_FIGURE}</td>
<td data-label="${OURS}" class="ours">${ours ? figure(ours.spread.median) : NO_FIGURE}</td>
<td class="wide">${ratioStrip(summary, OURS, reach)}</td>
<td data-label="to ztunnel" class="ours">${ztunnel ? times(ztunnel.median) : NO_FIGURE}</td>
<td data-label="to no mesh">${none ? times(none.median) : NO_FIGURE}</td>
<td data-label="target">${verdict && markup`<span class="${verdict.isReached ? 'good' : 'bad'}">${verdict.isReached ? '✓' : '✗'} ${bound(verdict.target, metric.unit)}</span>`}</td></tr>`
  })
  return markup`<section aria-labelledby="overview"><h2 id="overview">How it stands to ztunnel</h2>
<p class="soft">Medians of the rounds. A ratio is ${OURS} through the other one, taken within each round, then the median; a dot is a round, the bar their median, the triangle the target; what is further from level than the strip is long stands hollow at its end. ↑ more is better, ↓ less is better.</p>
<div class="card scroll"><table class="overview"><thead><tr><th scope="col">metric</th><th scope="col">ztunnel</th><th scope="col">${OURS}</th><th scope="col"><span class="legend"><span>${reach}× worse</span><span>level</span><span>${reach}× better</span></span></th><th scope="col">to ztunnel</th><th scope="col">to no mesh</th><th scope="col">target</th></tr></thead>
<tbody>${rows}</tbody></table></div></section>`
}

function metricsPart(run: BenchRun, summaries: readonly MetricSummary[]): Markup {
  const gaps = gapsOf(run)
  const cards = summaries.map(summary =>
    metricCard(
      summary,
      gaps.filter(gap => gap.metric === summary.metric.id).map(gap => gapNote(gap, run.rounds)),
    ),
  )
  return markup`<section aria-labelledby="metrics"><h2 id="metrics">Every metric, every round</h2>
<div class="cards">${cards}</div></section>`
}

function gapNote({ arm, rounds, why }: GapSummary, all: number): Markup {
  return markup`<p class="notice">${arm} not in ${roundsText(rounds, all)}: ${why}</p>`
}

function metricCard(summary: MetricSummary, notes: readonly Markup[]): Markup {
  const { metric, arms } = summary
  const rows = [...arms.values()].map(armRow)
  return markup`<article class="card"><header><h3>${metric.title}</h3><span>${metric.unit}, ${metric.better} is better</span></header>
<p>${metric.about}</p>
${dotPlot(summary)}
<div class="scroll"><table><thead><tr><th scope="col">arm</th><th scope="col">median</th><th scope="col">from – to</th><th scope="col" class="spread">spread</th><th scope="col">to ztunnel</th><th scope="col">to none</th></tr></thead>
<tbody>${rows}</tbody></table></div>
${notes}
<details><summary>what was run</summary><pre>${metric.command}</pre></details></article>`
}

function armRow({ arm, spread, ratios }: ArmResult): Markup {
  const [ztunnel, none] = [ratios.get('ztunnel'), ratios.get('none')]
  return markup`<tr${arm === OURS ? OURS_ROW : undefined}><th scope="row"><span class="key key-${arm}"></span>${arm}</th><td>${figure(spread.median)}</td><td>${fromTo(spread)}</td><td class="spread">${plusMinus(spread) || NO_FIGURE}</td><td>${ztunnel ? times(ztunnel.median) : NO_FIGURE}</td><td>${none ? times(none.median) : NO_FIGURE}</td></tr>`
}

const OURS_ROW = markup` class="ours"`

function arrow({ metric }: MetricSummary): string {
  return metric.better === 'higher' ? '↑' : '↓'
}

function seriesPart(series: readonly Series[]): Markup {
  return markup`<section aria-labelledby="growth"><h2 id="growth">Growth</h2><div class="cards">${series.map(seriesCard)}</div></section>`
}

function seriesCard(series: Series): Markup {
  const { title, unit, about, points } = series
  return markup`<article class="card"><header><h3>${title}</h3><span>${unit}</span></header>
<p>${about}</p>
${points.length > 0 ? markup`${linePlot(series)}${pointTable(series)}` : undefined}</article>`
}

function pointTable({ points, xLabel, yLabel, unit }: Series): Markup {
  const arms = [...new Set(points.map(point => point.arm))]
  const rows = [...new Set(points.map(point => point.x))].map(x => {
    const cells = arms.map(arm => {
      const found = points.findLast(point => point.x === x && point.arm === arm)
      return markup`<td>${found ? figure(found.y) : NO_FIGURE}</td>`
    })
    return markup`<tr><th scope="row">${count(x)}</th>${cells}</tr>`
  })
  const heads = arms.map(arm => markup`<th scope="col">${arm ?? yLabel}, ${unit}</th>`)
  return markup`<div class="scroll"><table><thead><tr><th scope="col">${xLabel}</th>${heads}</tr></thead><tbody>${rows}</tbody></table></div>`
}

function microPart(results: readonly MicroResult[]): Markup {
  const hasMemory = results.some(({ memory }) => memory)
  const rows = results.map(
    ({
      title,
      about,
      opsPerSecond,
      samples,
      unit,
      memory,
    }) => markup`<tr><th scope="row" title="${about}">${title}</th>
<td class="ours">${figure(opsPerSecond)}${unit && ` ${unit}`}</td><td>${samples.length > 0 ? fromTo(spreadOf(samples)) : NO_FIGURE}</td><td class="wide">${samples.length > 0 ? sampleStrip(samples, `samples of ${title}`) : undefined}</td>
${hasMemory ? markup`<td>${memory ? `${bytes(memory.keptBytes)} kept, ${bytes(memory.peakBytes)} at the peak` : ''}</td>` : undefined}</tr>`,
  )
  return markup`<section aria-labelledby="micro"><h2 id="micro">Parts by themselves</h2>
<p class="soft">Operations a second on one core; the median of the samples, which are all drawn, from 0.</p>
<div class="card scroll"><table><thead><tr><th scope="col">what</th><th scope="col">a second</th><th scope="col">from – to</th><th scope="col">samples</th>${hasMemory ? markup`<th scope="col">memory</th>` : undefined}</tr></thead>
<tbody>${rows}</tbody></table></div></section>`
}

function machinePart(run: BenchRun): Markup {
  const { machine } = run
  const facts: readonly (readonly [string, string])[] = [
    ['processor', `${machine.cores} × ${machine.cpu}`],
    ['memory', bytes(machine.memoryBytes)],
    ['kernel', machine.kernel],
    ['system', machine.os],
    ['Node', machine.node],
    ['load at the start', machine.loadAtStart.toFixed(2)],
    ['started', run.startedAt],
    ['finished', run.finishedAt],
    ['commit', `${run.commit}${run.isDirty ? ', with changes beyond it' : ''}`],
    ['command', run.command],
  ]
  return markup`<section aria-labelledby="machine"><h2 id="machine">Machine and command</h2>
<details class="card"><summary>${machine.cores} × ${machine.cpu}, Linux ${machine.kernel}, ${machine.os}, Node ${machine.node}</summary>
<dl>${facts.map(([name, value]) => markup`<dt>${name}</dt><dd>${value}</dd>`)}</dl></details></section>`
}

function armsPart(run: BenchRun): Markup {
  const cards = armsInOrder(run).map(
    arm => markup`<details class="card"><summary><span class="key key-${arm.name}"></span>${arm.name}${arm.version && ` ${arm.version}`}${arm.missing === undefined ? undefined : ' (did not run)'}</summary>
${armFacts(arm)}</details>`,
  )
  return markup`<section aria-labelledby="arms"><h2 id="arms">What ran in each arm</h2>${cards}</section>`
}

function armFacts({ commands, config, missing }: ArmInfo): Markup {
  return markup`${missing === undefined ? undefined : markup`<p>It did not run: ${missing}</p>`}
${commands.length > 0 ? markup`<h3>Commands</h3><pre>${commands.join('\n')}</pre>` : undefined}
${config === '' ? undefined : markup`<h3>Configuration</h3><pre>${config}</pre>`}`
}

function samplesPart(run: BenchRun): Markup | undefined {
  if (run.samples.length === 0) return undefined
  const titles = new Map(run.metrics.map(metric => [metric.id, `${metric.title}, ${metric.unit}`]))
  const rows = run.samples.map(
    ({ metric, arm, round, value, at }) =>
      markup`<tr><th scope="row">${titles.get(metric) ?? metric}</th><td>${arm}</td><td>${round}</td><td>${value}</td><td>${at}</td></tr>`,
  )
  return markup`<section aria-labelledby="samples"><h2 id="samples">All samples</h2>
<details class="card"><summary>${run.samples.length} values, as they were measured</summary><div class="scroll"><table><thead><tr><th scope="col">metric</th><th scope="col">arm</th><th scope="col">round</th><th scope="col">value</th><th scope="col">at</th></tr></thead><tbody>${rows}</tbody></table></div></details></section>`
}
