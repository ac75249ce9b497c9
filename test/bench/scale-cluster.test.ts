import t from 'tap'
import { scaleCluster } from '../../bench/scale-cluster.ts'

await t.test('a whole cluster is simulated, and what it takes is plotted', async t => {
  const said: string[] = []
  const { signal } = new AbortController()
  const series = await scaleCluster(what => said.push(what), { counts: [300], isQuick: true, signal })
  t.strictSame(said, ['scale-cluster: 300 pods, 50 of them replaced a second'])
  const points = Object.fromEntries(
    series.map(({ id, points }) => [id, Object.fromEntries(points.map(({ arm = '', y }) => [arm, y]))]),
  )
  t.ok(Object.values(points).every(arms => Object.values(arms).every(y => y >= 0)))
  const of = (id: string, arm: string): number => points[id]?.[arm] ?? NaN
  t.ok(of('cluster-rss', 'ca-server at rest') > 50 && of('cluster-rss', 'ca-server at rest') < 400)
  t.ok(of('cluster-rss', 'agent at rest') <= of('cluster-rss', 'agent at its largest'))
  t.ok(of('cluster-cost', 'ca-server') > 0)
  t.ok(of('cluster-known', 'p50') <= of('cluster-known', 'max'))
  t.ok(of('cluster-sync', 'ca-server') > 0 && of('cluster-sync', '20 clients at once') > 0)
  t.ok(of('cluster-response', '') > 10 && of('cluster-response', '') < 4096)
})

await t.test('it is given up when the signal says so', async t => {
  const signal = AbortSignal.abort(new Error('enough'))
  await t.rejects(
    scaleCluster(() => undefined, { counts: [300], isQuick: true, signal }),
    { message: 'enough' },
  )
})
