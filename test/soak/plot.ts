/** Numbers over time: a line of blocks for a terminal, and a page of its own for a browser. */
import type { Deed } from './deeds.ts'
import type { Sample } from './samples.ts'
import type { SoakReport } from './soak.ts'

const BLOCKS = '▁▂▃▄▅▆▇█'
const WIDTH = 900
const HEIGHT = 260
const MARGIN = { left: 70, right: 20, top: 30, bottom: 40 }
const COLOURS = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e']
const MIB = 1024 * 1024

/** At most `width` characters, each the mean of its part of the values; from the least to the greatest of them. */
export function sparkline(values: readonly number[], width = 60): string {
  if (values.length === 0) return ''
  const count = Math.min(width, values.length)
  const means = Array.from({ length: count }, (_, at) => {
    const part = values.slice(
      Math.floor((at * values.length) / count),
      Math.floor(((at + 1) * values.length) / count),
    )
    return part.reduce((sum, value) => sum + value, 0) / part.length
  })
  const least = Math.min(...means)
  const range = Math.max(...means) - least
  return means
    .map(mean => BLOCKS[range === 0 ? 0 : Math.round(((mean - least) / range) * (BLOCKS.length - 1))])
    .join('')
}

/** Everything in one file that needs nothing else. */
export function htmlOf(report: SoakReport): string {
  const { seed, seconds, samples, deeds, wrong } = report
  const marks = deeds.map(deed => ({ ...deed, atMs: deed.struckAtMs - report.startedAtMs }))
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Culvert soak</title>
<style>body{font:14px system-ui,sans-serif;margin:2em;max-width:960px}svg{background:#fff;border:1px solid #ddd}
text{font:11px system-ui,sans-serif;fill:#444}li{margin:.2em 0}.wrong{color:#b00}</style>
<h1>Culvert soak: ${Math.round(seconds)} s, seed ${seed}</h1>
${wrong.length === 0 ? '<p>Everything is accounted for.</p>' : `<ul class="wrong">${wrong.map(line => `<li>${escape(line)}</li>`).join('')}</ul>`}
<h2>Resident memory, MiB</h2>
${chart(samples, marks, ({ rssBytes }) => rssBytes / MIB)}
<h2>Descriptors</h2>
${chart(samples, marks, ({ descriptors }) => descriptors)}
<h2>What was done</h2>
<ol>${marks.map(({ kind, node, atMs, beganAtMs, endedAtMs }) => `<li>after ${(atMs / 1000).toFixed(1)} s: ${kind} ${node}, whole again ${((endedAtMs - beganAtMs) / 1000).toFixed(1)} s later</li>`).join('')}</ol>
</html>
`
}

/** One line for each part, broken where its process is another; a dashed one for each deed. */
function chart(
  samples: readonly Sample[],
  marks: readonly (Deed & { readonly atMs: number })[],
  valueOf: (sample: Sample) => number,
): string {
  const endMs = Math.max(1, ...samples.map(({ atMs }) => atMs))
  const most = Math.max(1, ...samples.map(valueOf)) * 1.05
  const x = (atMs: number) => MARGIN.left + (atMs / endMs) * (WIDTH - MARGIN.left - MARGIN.right)
  const y = (value: number) => HEIGHT - MARGIN.bottom - (value / most) * (HEIGHT - MARGIN.top - MARGIN.bottom)
  const parts = [...new Set(samples.map(({ part }) => part))].sort()
  const lines = [...Map.groupBy(samples, ({ part, pid }) => `${part} ${pid}`).values()].map(all => {
    const colour = COLOURS[parts.indexOf(all[0]!.part) % COLOURS.length]
    const points = all
      .map(sample => `${x(sample.atMs).toFixed(1)},${y(valueOf(sample)).toFixed(1)}`)
      .join(' ')
    return `<polyline fill="none" stroke="${colour}" stroke-width="1.5" points="${points}"/>`
  })
  const ticks = [0, 0.25, 0.5, 0.75, 1].flatMap(part => [
    `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(most * part)}" y2="${y(most * part)}" stroke="#eee"/>`,
    `<text x="${MARGIN.left - 8}" y="${y(most * part) + 4}" text-anchor="end">${Math.round(most * part)}</text>`,
    `<text x="${x(endMs * part)}" y="${HEIGHT - MARGIN.bottom + 18}" text-anchor="middle">${Math.round((endMs * part) / 1000)} s</text>`,
  ])
  const dashes = marks.map(
    ({ atMs, kind, node }) =>
      `<line x1="${x(atMs)}" x2="${x(atMs)}" y1="${MARGIN.top}" y2="${HEIGHT - MARGIN.bottom}" stroke="#bbb" stroke-dasharray="3 3"><title>${kind} ${node}</title></line>`,
  )
  const legend = parts.map(
    (part, at) =>
      `<text x="${MARGIN.left + at * 140}" y="18" style="fill:${COLOURS[at % COLOURS.length]}">${escape(part)}</text>`,
  )
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}">${[...ticks, ...dashes, ...lines, ...legend].join('')}</svg>`
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
