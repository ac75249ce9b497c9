import t from 'tap'
import { fuzz } from './fuzz.ts'

await t.test(
  'damaged sessions harm neither the data plane nor the honest client beside them',
  { timeout: 280_000 },
  async t => {
    const { signal } = new AbortController()
    // Other tests share the processors: how long anything takes is not looked at here.
    const report = await fuzz({ seconds: 3, seed: 20_261_124, signal, isTimed: false })
    t.strictSame(
      report.findings.map(({ what }) => what),
      [],
    )
    for (const [kind, count] of Object.entries(report.cases)) t.ok(count > 0, `${count} cases ${kind}`)
    t.ok(report.honestDuring.roundTrips > 100, `${report.honestDuring.roundTrips} honest round trips`)
  },
)
