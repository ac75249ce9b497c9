import t from 'tap'
import { scalePods } from '../../bench/scale-pods.ts'

const isRoot = process.getuid?.() === 0

await t.test('growth with pods: enrolment, start, memory and first connections', async t => {
  const { signal } = new AbortController()
  const measured = scalePods(() => undefined, { counts: [1, 3], isQuick: true, signal })
  if (!isRoot) {
    await t.rejects(measured, { code: 'DENIED' })
    return
  }
  const series = await measured
  t.strictSame(
    series.map(({ id }) => id),
    ['pods-rss', 'pods-enrol', 'pods-cpu', 'pods-idle', 'pods-start', 'pods-first'],
  )
  for (const { id, points } of series) {
    t.strictSame([...new Set(points.map(({ x }) => x))], [1, 3], id)
    t.ok(
      // Processor time counts in ticks of 10 ms, and that little may be none.
      points.every(({ y }) => (id === 'pods-cpu' || id === 'pods-idle' ? y >= 0 : y > 0)),
      id,
    )
  }
})
