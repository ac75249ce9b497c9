import { stripVTControlCharacters } from 'node:util'
import t from 'tap'
import type { BenchRun } from '../../bench/model.ts'
import { change, duration, figure, times } from '../../bench/report-numbers.ts'
import { summarise } from '../../bench/report-summary.ts'
import { renderTable } from '../../bench/report.ts'
import { benchRun, HOSTILE, metricInfo, samplesOf } from '../helpers/bench-run.ts'

/** The cells of the row that begins with this title. */
function rowOf(text: string, title: string): string[] {
  const row = text.split('\n').find(line => line.includes(title))
  return row?.trim().split(/\s{2,}/) ?? []
}

await t.test('a row has the median and spread of every arm, and ratios taken within the rounds', async t => {
  const row = rowOf(renderTable(benchRun(), false), 'bulk, 1 stream')
  // 5.9/4.0, 4.8/4.5, 4.3/4.4, 6.2/4.6, 6.1/5.6: the middle one is 1.09, where that of the medians is 1.31.
  t.strictSame(row, [
    '↑ bulk, 1 stream',
    'Gb/s',
    '16.1 ±14%',
    '4.20 ±15%',
    '4.50 ±18%',
    '5.90 ±16%',
    '1.09×',
    '0.35×',
    '✗ ≥1.2×',
  ])
})

await t.test('verdicts: ratios to ztunnel, to another metric of ours, and plain amounts', async t => {
  const verdicts = new Map(summarise(benchRun()).map(({ metric, verdict }) => [metric.id, verdict]))
  t.match(verdicts.get('rt-64-p50'), { isReached: true })
  t.match(verdicts.get('rt-64-p99'), { isReached: false })
  t.match(verdicts.get('beside-bulk-p99'), { isReached: true })
  t.match(verdicts.get('rss-idle'), { isReached: true, figure: 84 })
  const text = renderTable(benchRun(), false)
  t.match(text, '✓ ≤2× alone')
  t.match(text, '✓ ≤90 MB')
  const fat = benchRun({ samples: samplesOf('rss-idle', { culvert: [91, 92, 93] }) })
  t.match(renderTable(fat, false), '✗ ≤90 MB')
})

await t.test('an arm that did not run is named with the reason, and has no column', async t => {
  const text = renderTable(benchRun(), false)
  t.match(text, 'haproxy did not run: haproxy is not installed')
  t.notMatch(
    text.split('\n').find(line => line.startsWith('median of rounds')),
    'haproxy',
  )
})

await t.test(
  'a metric that an arm has not measured is a dash, also where a ratio to it would be',
  async t => {
    const row = renderTable(benchRun(), false)
      .split('\n')
      .find(line => line.includes('memory, idle'))
    t.match(row, /MB\s+–\s+9\.10\s+±1%\s+14\.2\s+±1%\s+84\.0\s+±2%\s+5\.92×\s+–\s+✓ ≤90 MB$/)
  },
)

await t.test('machine, micro results and series are on it', async t => {
  const text = renderTable(benchRun(), false)
  t.match(text, /2 × Example CPU .* 23\.5 GiB .* Linux 6\.18\.5 .* Node v26\.10\.0 .* Debian/)
  t.match(text, /commit 0123456789ab · 5 rounds .* 21 min 30 s/)
  t.match(text, /frame encode, 64 B\s+1,520,000\s+±1%\s+1,500,000 – 1,540,000\s+658 ns/)
  t.match(text, /12\.4 MiB kept, 58\.2 MiB peak/)
  t.match(text, /resident memory\s+88\.0\s+104\s+160\s+231/)
})

await t.test('growth that could not be measured says why', async t => {
  const [series] = benchRun().series!
  const text = renderTable(
    benchRun({ series: [{ ...series!, points: [], about: 'Not measured: no root' }] }),
    false,
  )
  t.match(text, /memory of the agent by workloads known, MiB\nNot measured: no root\n$/)
})

await t.test('a machine that was busy is not kept quiet about', async t => {
  const run = benchRun()
  t.notMatch(renderTable(run, false), 'was busy')
  t.match(renderTable({ ...run, machine: { ...run.machine, loadAtStart: 3.5 } }, false), 'was busy')
})

await t.test('it fits 120 columns, with every arm and long titles, in colour and without', async t => {
  const measured = {
    none: [70_450.5, 81_560],
    nginx: [3780, 38_712],
    haproxy: [3781, 38_713],
    ztunnel: [14_430, 14_931],
    culvert: [13_571, 19_930],
  }
  const arms = benchRun().arms.map(({ name, commands, config }) => ({ name, commands, config }))
  const metric = metricInfo('conn-32', { title: 'new connections, thirty-two at a time, from one pod' })
  const run = benchRun({ arms, metrics: [metric], samples: samplesOf('conn-32', measured) })
  const plain = renderTable(run, false)
  const widest = Math.max(...plain.split('\n').map(line => line.length))
  t.ok(widest <= 120, `${widest} columns`)
  t.match(plain, /\n  +from one pod\n/, 'what does not fit goes below')
  const coloured = renderTable(run, true)
  t.not(coloured, plain)
  t.equal(stripVTControlCharacters(coloured), plain)
})

await t.test('names of others cannot write escape sequences', async t => {
  const run: BenchRun = benchRun({
    commit: HOSTILE,
    machine: { ...benchRun().machine, cpu: HOSTILE, kernel: HOSTILE },
    metrics: [metricInfo('bulk-1', { title: HOSTILE, unit: HOSTILE })],
    arms: [{ name: 'haproxy', missing: HOSTILE, commands: [], config: '' }],
  })
  t.notMatch(renderTable(run, false), '\u001b')
})

await t.test('a run with nothing in it is still a table', async t => {
  const run = benchRun({ arms: [], metrics: [], samples: [], micro: [], series: [] })
  t.equal(renderTable(run, false).trimEnd().split('\n').length, 3)
})

await t.test('figures have three digits that count', async t => {
  t.strictSame([0, 0.05214, 0.521, 5.214, 52.14, 521.4, 5214.4, 1_520_000, Number.NaN].map(figure), [
    '0',
    '0.0521',
    '0.521',
    '5.21',
    '52.1',
    '521',
    '5,214',
    '1,520,000',
    '–',
  ])
  t.strictSame([1, 0.347, 12.345].map(times), ['1.00×', '0.35×', '12.3×'])
  t.strictSame([1, 1.041, 0.5, 3].map(change), ['0.0%', '+4.1%', '−50.0%', '+200%'])
  t.strictSame([900, 80_000, 3_700_000].map(duration), ['1 s', '1 min 20 s', '1 h 1 min'])
})
