/** What a campaign is told as. */
import type { FuzzReport } from './fuzz.ts'

const MIB = 1024 * 1024

export function summaryOf(report: FuzzReport, files: ReadonlyMap<string, string>): string {
  const { seed, seconds, cases, endings, honestBefore, honestDuring, start, warm, end, findings } = report
  const count = Object.values(cases).reduce((sum, each) => sum + each, 0)
  const lines = [
    `seed ${seed}: ${count} cases in ${seconds.toFixed(1)} s (${Object.entries(cases)
      .map(([kind, each]) => `${each} ${kind}`)
      .join(', ')})`,
    '',
    'how they ended',
    ...Object.entries(endings)
      .toSorted(([a, countA], [b, countB]) => countB - countA || a.localeCompare(b))
      .map(([ending, each]) => `  ${String(each).padStart(7)}  ${ending}`),
    '',
    'the honest client            without       with',
    row('round trips', honestBefore.roundTrips, honestDuring.roundTrips, 0),
    row('connections', honestBefore.connections, honestDuring.connections, 0),
    row('failed', honestBefore.failed, honestDuring.failed, 0),
    row('p50, ms', honestBefore.p50Ms, honestDuring.p50Ms, 2),
    row('p99, ms', honestBefore.p99Ms, honestDuring.p99Ms, 2),
    row('worst, ms', honestBefore.worstMs, honestDuring.worstMs, 2),
    '',
    'the data plane                before      after',
    row('descriptors', start.descriptors, end.descriptors, 0),
    row('sessions', start.sessions, end.sessions, 0),
    row('streams', start.tunnels, end.tunnels, 0),
    row('timers', start.timers, end.timers, 0),
    row('held, MiB (after: since warm)', warm.heldBytes / MIB, end.heldBytes / MIB, 1),
    row('resident, MiB (the same)', warm.rssBytes / MIB, end.rssBytes / MIB, 1),
    row(
      'longest hold of its loop, ms',
      start.longestHeldMs,
      Math.max(warm.longestHeldMs, end.longestHeldMs),
      1,
    ),
    '',
  ]
  for (const { what, cases } of findings) {
    const file = files.get(what)
    lines.push(`FOUND ${what}`)
    if (file !== undefined && cases.length > 0) lines.push(`      again: npm run fuzz -- --replay ${file}`)
  }
  lines.push(findings.length === 0 ? 'nothing found' : `${findings.length} found`)
  return `${lines.join('\n')}\n`
}

function row(name: string, before: number, after: number, digits: number): string {
  return `  ${name.padEnd(30)}${before.toFixed(digits).padStart(4)} ${after.toFixed(digits).padStart(10)}`
}

/** The same for programs: findings by what they are and where their cases were written. */
export function jsonOf(report: FuzzReport, files: ReadonlyMap<string, string>): string {
  const findings = report.findings.map(({ what, cases }) => ({
    what,
    cases: cases.map(({ number, kind }) => ({ number, kind })),
    file: files.get(what),
  }))
  return `${JSON.stringify({ ...report, findings }, undefined, 2)}\n`
}
