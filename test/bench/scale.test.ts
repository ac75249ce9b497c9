import t from 'tap'
import { scaleWorkloads } from '../../bench/scale-workloads.ts'

await t.test('an agent is fed a whole cluster, and its memory, start and decisions are plotted', async t => {
  const said: string[] = []
  const { signal } = new AbortController()
  const series = await scaleWorkloads(what => said.push(what), { counts: [200], isQuick: true, signal })
  t.equal(said.length, 4)
  const modes = ['full', 'on-demand']
  t.strictSame(
    series.map(({ id, unit, points }) => [id, unit, points.map(({ arm }) => arm)]),
    [
      ['workloads-rss', 'MiB', modes.flatMap(mode => [`${mode}, at rest`, `${mode}, at its largest`])],
      ['workloads-kept', 'MiB', ['on-demand', 'full']],
      ['workloads-ready', 's', modes],
      ['workloads-start-cpu', 's', modes],
      ['workloads-churn-cpu', 'ms', modes],
      [
        'workloads-decision',
        'µs',
        ['pod, on demand, the first time', 'service, on demand, the first time', 'pod', 'service'],
      ],
    ],
  )
  t.ok(series.every(({ points }) => points.every(({ x }) => x === 200)))
  const [memory, kept, ready, start, churn, decision] = series.map(({ points }) => points.map(({ y }) => y))
  t.ok(
    memory!.every(mebibytes => mebibytes > 20 && mebibytes < 1000),
    memory!.join(),
  )
  t.ok(
    memory![0]! <= memory![1]! && memory![2]! <= memory![3]!,
    'at rest it is no larger than at its largest',
  )
  t.ok([...kept!, ...ready!, ...start!, ...decision!].every(figure => figure > 0))
  t.ok(churn!.every(ms => ms >= 0))
})

await t.test('it is given up when the signal says so', async t => {
  const signal = AbortSignal.abort(new Error('enough'))
  await t.rejects(
    scaleWorkloads(() => undefined, { counts: [200], isQuick: true, signal }),
    { message: 'enough' },
  )
})
