/** What a soak is told as. */
import { sparkline } from './plot.ts'
import type { SoakReport } from './soak.ts'

const MIB = 1024 * 1024

export function summaryOf(report: SoakReport): string {
  const { seed, seconds, deeds, done, bytes, explained, rotations, start, end, samples, trends, wrong } =
    report
  const counts = Object.entries(done)
  const connections = counts.reduce((sum, [, count]) => sum + count, 0)
  const lines = [
    `seed ${seed}: ${Math.round(seconds)} s, ${connections} connections, ${(bytes / MIB / 1024).toFixed(2)} GiB by hash`,
    `  ${counts.map(([kind, count]) => `${count} ${kind}`).join(', ')}`,
    `  ${explained} were cut by what was done, ${rotations} certificates renewed`,
    '',
    'what was done',
    ...deeds.map(({ kind, node, struckAtMs, beganAtMs, endedAtMs }) => {
      const at = ((struckAtMs - report.startedAtMs) / 1000).toFixed(1)
      return `  ${at.padStart(7)} s  ${`${kind} ${node}`.padEnd(24)} whole again after ${endedAtMs - beganAtMs} ms`
    }),
    '',
    'resident memory of each part, as it was at each time',
  ]
  for (const [part, all] of Map.groupBy(samples, ({ part }) => part)) {
    const values = all.map(({ rssBytes }) => rssBytes / MIB)
    const range = `${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)} MiB`
    lines.push(`  ${part.padEnd(14)} ${sparkline(values)} ${range}`)
  }
  lines.push('', 'straight lines through it, once warm')
  for (const { part, pid, fromMs, toMs, fromBytes, toBytes } of trends)
    lines.push(
      `  ${`${part} (${pid})`.padEnd(24)} ${(fromBytes / MIB).toFixed(1)} to ${(toBytes / MIB).toFixed(1)} MiB in ${Math.round((toMs - fromMs) / 1000)} s`,
    )
  if (trends.length === 0) lines.push('  no process lived long enough to tell')
  lines.push('', 'at rest                start        end')
  for (const [part, now] of Object.entries(end.parts)) {
    const then = start.parts[part]
    lines.push(
      `  ${`descriptors of ${part}`.padEnd(26)}${String(then?.descriptors ?? '–').padStart(4)} ${String(now.descriptors).padStart(6)}`,
    )
  }
  lines.push('', ...wrong.map(line => `WRONG ${line}`))
  lines.push(wrong.length === 0 ? 'everything is accounted for' : `${wrong.length} not in order`)
  return `${lines.join('\n')}\n`
}
