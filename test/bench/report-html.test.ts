import * as fc from 'fast-check'
import t from 'tap'
import { escape, markup } from '../../bench/html-markup.ts'
import { renderHtml } from '../../bench/html.ts'
import type { BenchRun } from '../../bench/model.ts'
import { fittingScale, linearScale, logScale } from '../../bench/svg-scale.ts'
import { benchRun, HOSTILE, metricInfo, samplesOf } from '../helpers/bench-run.ts'
import { codePoint } from '../helpers/code-point.ts'

/** Everything that stands between tags. */
function textOf(html: string): string {
  return html.replaceAll(/<style>.*?<\/style>/gs, '').replaceAll(/<[^>]*>/g, ' ')
}

await t.test('the page stands alone: no script, nothing loaded', async t => {
  const html = renderHtml(benchRun())
  t.match(html, /^<!doctype html>\n<html lang="en">/)
  t.notMatch(html, /<script|<link|<img|@import|url\(|https?:|\bon[a-z]+=/i)
  t.match(html, 'prefers-color-scheme: dark')
})

await t.test('every round of every arm is drawn, and named for who points at it', async t => {
  const run = benchRun()
  const html = renderHtml(run)
  const dots = html.match(/<title>\w+, round \d: /g) ?? []
  t.equal(dots.length, run.samples.length)
  t.match(html, '<title>culvert, round 3: 4.30 Gb/s</title>')
})

await t.test('every plot has a title and a table', async t => {
  const html = renderHtml(benchRun())
  const plots = html.match(/<svg class="plot"[^>]*>/g) ?? []
  t.equal(plots.length, 7)
  t.ok(plots.every(plot => /role="img"/.test(plot) && /aria-label="[^"]{10,}"/.test(plot)))
  const cards = html.match(/<article class="card">.*?<\/article>/gs) ?? []
  t.equal(cards.length, 7)
  t.ok(cards.every(card => card.includes('<svg') && card.includes('<table>')))
})

await t.test('ratios, targets, the missing arm, machine, commands and configurations are on it', async t => {
  const text = textOf(renderHtml(benchRun()))
  t.match(text, /4\s+of\s+6\s+targets reached/)
  t.match(text, /bulk, 1 stream, Gb\/s ↑\s+4\.50\s+5\.90\s+.*?1\.09×\s+0\.35×\s+✗ ≥1\.2×/s)
  t.match(text, /haproxy\s+did not run: haproxy is not installed/)
  for (const part of [
    'Linux 6.18.5',
    'v26.10.0',
    'npm run bench -- --rounds 5',
    'iperf3 -c 10.77.0.2',
    'ztunnel 1.28.0',
    'FAKE_CA=true',
  ])
    t.match(text, part)
})

await t.test('what could not be measured is said where it would stand', async t => {
  const run = benchRun({
    metrics: [...benchRun().metrics, metricInfo('http', { title: 'HTTP', missing: 'wrk is not installed' })],
    gaps: [{ arm: 'ztunnel', metric: 'conn-1', round: 2, why: `it ended: ${HOSTILE}` }],
  })
  const html = renderHtml(run)
  t.match(textOf(html), /HTTP\s+was not measured: wrk is not installed/)
  const card = html
    .match(/<article class="card">.*?<\/article>/gs)
    ?.find(each => each.includes('ztunnel not in'))
  t.match(card, 'new connections, one at a time')
  t.notMatch(html, '<script')
})

await t.test('nothing of others becomes part of the page', async t => {
  const run: BenchRun = benchRun({
    commit: HOSTILE,
    command: HOSTILE,
    machine: { ...benchRun().machine, cpu: HOSTILE, kernel: HOSTILE, node: HOSTILE, os: HOSTILE },
    arms: [
      { name: 'none', version: HOSTILE, commands: [HOSTILE], config: HOSTILE },
      { name: 'haproxy', missing: HOSTILE, commands: [], config: '' },
    ],
    metrics: [metricInfo('bulk-1', { title: HOSTILE, unit: HOSTILE, about: HOSTILE, command: HOSTILE })],
    micro: [{ id: HOSTILE, title: HOSTILE, about: HOSTILE, unit: HOSTILE, opsPerSecond: 1, samples: [1] }],
    series: [
      {
        id: HOSTILE,
        title: HOSTILE,
        xLabel: HOSTILE,
        yLabel: HOSTILE,
        unit: HOSTILE,
        about: HOSTILE,
        points: [{ arm: HOSTILE, x: 1, y: 1 }],
      },
    ],
  })
  const html = renderHtml(run)
  t.notMatch(html, '<script')
  t.notMatch(html, '\u001b')
  t.match(html, '&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;?[31m')
  // An attribute that was broken out of would leave its quotes uneven.
  const tags = html.match(/<[a-z][^>]*>/g) ?? []
  t.ok(tags.every(tag => (tag.match(/"/g) ?? []).length % 2 === 0))
})

await t.test('whatever is put into a template is text', async () => {
  fc.assert(
    fc.property(fc.string({ unit: codePoint() }), text => {
      const { text: page } = markup`<p title="${text}">${[text, undefined, 1]}</p>`
      return page === `<p title="${escape(text)}">${escape(text)}1</p>` && !/[<>"']/.test(escape(text))
    }),
  )
})

await t.test('a page of a run in which nothing was measured', async t => {
  const html = renderHtml(benchRun({ metrics: [], samples: [], micro: [], series: [], arms: [] }))
  t.notMatch(html, /NaN|undefined|Infinity/)
})

await t.test('zeros, equal values and single rounds are drawn in place', async t => {
  for (const values of [[0, 0], [5], [1e-9, 1e9], [3, 3, 3]]) {
    const run = benchRun({ samples: samplesOf('bulk-1', { ztunnel: values, culvert: values }) })
    t.notMatch(renderHtml(run), /NaN|undefined|Infinity/)
  }
})

await t.test('an axis holds all of its values, between its ends', async () => {
  const above = fc.double({ min: 1e-6, max: 1e12, noNaN: true })
  fc.assert(
    fc.property(fc.array(above, { minLength: 1, maxLength: 20 }), list =>
      [linearScale, logScale, fittingScale].every(make => {
        const scale = make(list, 10, 100)
        const within = (place: number) => place >= 10 - 1e-6 && place <= 100 + 1e-6
        return (
          list.every(value => within(scale.at(value))) &&
          scale.ticks.every(tick => within(scale.at(tick))) &&
          scale.ticks.length >= 2 &&
          scale.ticks.length <= 20
        )
      }),
    ),
  )
})
