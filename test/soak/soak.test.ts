import t from 'tap'
import { htmlOf } from './plot.ts'
import { soak } from './soak.ts'
import { summaryOf } from './summary.ts'

await t.test(
  'traffic of every kind lives through all that is done to the mesh, and leaves nothing behind',
  { timeout: 280_000 },
  async t => {
    const { signal } = new AbortController()
    // Light: other tests run beside it.
    const light = { seconds: 9, everySeconds: 1.8, pauses: 9 }
    const report = await soak({ ...light, ttlSeconds: 20, seed: 20_261_124, signal })
    t.strictSame(report.wrong, [])
    t.strictSame(
      new Set(report.deeds.map(({ kind }) => kind)),
      new Set(['replace-agent', 'kill-agent', 'churn', 'stop-ca']),
    )
    t.match(summaryOf(report), /everything is accounted for\n$/)
    t.match(htmlOf(report), /<svg .*<polyline/s)
  },
)
