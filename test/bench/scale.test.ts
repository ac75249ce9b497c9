import t from 'tap'
import { scaleWorkloads } from '../../bench/scale-workloads.ts'

await t.test('an agent is fed a whole cluster, and its memory, start and decisions are plotted', async t => {
  const said: string[] = []
  const { signal } = new AbortController()
  const series = await scaleWorkloads(what => said.push(what), { counts: [200], isQuick: true, signal })
  t.equal(said.length, 2)
  t.strictSame(
    series.map(({ id, unit, points }) => [id, unit, points.map(({ arm, x }) => [arm, x])]),
    [
      [
        'workloads-rss',
        'MiB',
        [
          ['at rest', 200],
          ['at its largest', 200],
        ],
      ],
      ['workloads-ready', 's', [[undefined, 200]]],
      [
        'workloads-decision',
        'µs',
        [
          ['pod', 200],
          ['service', 200],
        ],
      ],
    ],
  )
  const [memory, ready, decision] = series.map(({ points }) => points.map(({ y }) => y))
  t.ok(
    memory!.every(mebibytes => mebibytes > 20 && mebibytes < 1000),
    memory!.join(),
  )
  t.ok(memory![0]! <= memory![1]!, 'at rest it is no larger than at its largest')
  t.ok(ready![0]! > 0 && decision!.every(micros => micros > 0))
})

await t.test('it is given up when the signal says so', async t => {
  const signal = AbortSignal.abort(new Error('enough'))
  await t.rejects(
    scaleWorkloads(() => undefined, { counts: [200], isQuick: true, signal }),
    { message: 'enough' },
  )
})
