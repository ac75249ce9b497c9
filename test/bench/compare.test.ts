import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { compareRuns, comparisonsOf } from '../../bench/compare.ts'
import type { ArmName, BenchRun } from '../../bench/model.ts'
import { parseRun, readRun } from '../../bench/report-file.ts'
import { benchRun, HOSTILE, metricInfo, samplesOf, type Measured } from '../helpers/bench-run.ts'

function runOf(measured: Measured, more: Partial<BenchRun> = {}): BenchRun {
  return benchRun({
    micro: [],
    metrics: [metricInfo('bulk-1')],
    samples: samplesOf('bulk-1', measured),
    ...more,
  })
}

function of(before: Measured, after: Measured, arm: ArmName = 'culvert') {
  return comparisonsOf(runOf(before), runOf(after)).find(each => each.arm === arm)
}

await t.test('a change beyond the spread of both is better or worse, as the metric has it', async t => {
  t.match(of({ culvert: [10, 10.2, 10.1] }, { culvert: [12, 12.1, 12.2] }), { verdict: 'better' })
  t.match(of({ culvert: [12, 12.1, 12.2] }, { culvert: [10, 10.2, 10.1] }), { verdict: 'worse' })
  const latency = (values: number[]) =>
    runOf({ culvert: values }, { metrics: [metricInfo('bulk-1', { better: 'lower' })] })
  t.match(comparisonsOf(latency([100, 101]), latency([150, 151])), [
    { verdict: 'worse', change: 1.4975124378109452 },
  ])
})

await t.test('a change that either run has among its own rounds is within noise', async t => {
  t.match(of({ culvert: [8, 10, 12] }, { culvert: [12, 12.1, 12.2] }), { verdict: 'within-noise' })
  t.match(of({ culvert: [10, 10.1, 10.2] }, { culvert: [9, 12, 14] }), { verdict: 'within-noise' })
})

await t.test('what the machine did to none and ztunnel is taken out', async t => {
  const before = { none: [20, 20, 20.2], ztunnel: [5, 5, 5.05], culvert: [6, 6, 6.06] }
  const half = { none: [10, 10, 10.1], ztunnel: [2.5, 2.5, 2.52], culvert: [3, 3, 3.03] }
  const found = of(before, half)
  t.equal(found?.change, 0.5)
  t.equal(found?.normalised, 1)
  t.equal(found?.verdict, 'within-noise')
  t.match(of(before, half, 'ztunnel'), { normalised: undefined, verdict: 'worse' })
})

await t.test('without none and ztunnel there is nothing to take out', async t => {
  t.match(of({ culvert: [1, 1] }, { culvert: [2, 2] }), {
    change: 2,
    normalised: undefined,
    verdict: 'better',
  })
})

await t.test('a single round says nothing of noise', async t => {
  t.match(of({ culvert: [1] }, { culvert: [2, 2] }), { verdict: 'spread-unknown' })
})

await t.test('only what both runs have is compared', async t => {
  t.strictSame(comparisonsOf(runOf({ nginx: [1, 2] }), runOf({ culvert: [1, 2] })), [])
  t.match(compareRuns(runOf({ nginx: [1] }), runOf({ culvert: [1] })), 'nothing measured in common')
})

await t.test('parts measured by themselves are compared by their samples', async t => {
  const part = { id: 'p', title: 'a part', about: 'Does a thing.', opsPerSecond: 10 }
  const run = (samples: number[]) => runOf({}, { metrics: [], micro: [{ ...part, samples }] })
  t.match(comparisonsOf(run([10, 10.1, 9.9]), run([20, 20.1, 20.2])), [
    { metric: { id: 'p', unit: '/s' }, arm: 'culvert', normalised: undefined, verdict: 'better' },
  ])
  t.match(
    compareRuns(run([10, 10]), run([5, 5])),
    /a part, \/s, higher is better\n +culvert .*−50\.0%.* worse/,
  )
})

await t.test('the text names both runs, every change and what it is worth', async t => {
  const after = benchRun({
    commit: 'fedcba9876543210',
    samples: benchRun().samples.map(sample =>
      sample.arm === 'culvert' ? { ...sample, value: sample.value * 2 } : sample,
    ),
  })
  const text = compareRuns(benchRun(), after)
  t.match(text, /before {2}0123456789ab .*\nafter {3}fedcba987654 /)
  t.match(text, /bulk, 1 stream, Gb\/s, higher is better/)
  t.match(text, /culvert\s+5\.90 ±16%\s+11\.8 ±16%\s+\+100%\s+\+100%\s+better/)
  t.match(text, /ztunnel\s+4\.50 ±18%\s+4\.50 ±18%\s+0\.0%\s+–\s+within noise/)
  t.notMatch(text, '\u001b')
})

await t.test('another machine is said to be one, and names of others print', async t => {
  const { machine } = benchRun()
  const text = compareRuns(benchRun(), benchRun({ commit: HOSTILE, machine: { ...machine, cpu: HOSTILE } }))
  t.match(text, 'not the same machine: cpu Example CPU')
  t.notMatch(text, '\u001b')
})

await t.test('a run is read from its file as it was', async t => {
  const file = join(t.testdir(), 'run.json')
  await writeFile(file, JSON.stringify(benchRun()))
  t.strictSame(await readRun(file), JSON.parse(JSON.stringify(benchRun())))
})

await t.test('a file that holds no run is refused, saying why', async t => {
  await t.rejects(readRun(join(t.testdir(), 'none.json')), { code: 'INPUT', message: /cannot be read/ })
  const refused: readonly (readonly [string, RegExp])[] = [
    ['{', /not JSON/],
    ['[]', /not an object/],
    [JSON.stringify({ ...benchRun(), schema: 2 }), /schema is 2/],
    [JSON.stringify({ ...benchRun(), machine: {} }), /machine\.cpu/],
    [JSON.stringify({ ...benchRun(), samples: 'none' }), /samples is not a list/],
    [JSON.stringify({ ...benchRun(), samples: [{ arm: 'other' }] }), /samples\[0\] has no name of an arm/],
    [
      JSON.stringify({
        ...benchRun(),
        samples: [{ arm: 'none', metric: 'm', at: '', value: 'x', round: 1 }],
      }),
      /samples\[0\] has no value/,
    ],
    [
      JSON.stringify({ ...benchRun(), metrics: [{ ...metricInfo('a'), better: 'faster' }] }),
      /metrics\[0\] says/,
    ],
    [JSON.stringify({ ...benchRun(), series: [{}] }), /series\[0\] has no title/],
  ]
  for (const [text, message] of refused)
    t.throws(() => parseRun(text, 'run.json'), { code: 'INPUT', message })
})
