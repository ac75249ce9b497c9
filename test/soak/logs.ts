/** What agents and ca-server have written that they should not have. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from '../../lab/lab.ts'

/** Of its kind, so many are enough to know. */
const MOST = 10

/** Said because of what was done to them. */
const EXPECTED = [
  /ca-server|certificate|discovery|report/i, // the ca-server was away
]

/** Lines at `error` or `fatal` that are no access-log lines, and whatever is no JSON; each kind once. */
export function logProblems(lab: Lab): string[] {
  const problems = new Map<string, string>()
  for (const file of readdirSync(lab.paths.logs)) {
    if (!/^(agent|ca-server)/.test(file)) continue
    for (const line of readFileSync(join(lab.paths.logs, file), 'utf8').split('\n')) {
      const problem = problemOf(line)
      if (problem === undefined) continue
      const kind = `${file}: ${problem.replaceAll(/\d+/g, '#').slice(0, 80)}`
      if (!problems.has(kind) && problems.size < MOST)
        problems.set(kind, `${file} says: ${problem.slice(0, 500)}`)
    }
  }
  return [...problems.values()]
}

function problemOf(line: string): string | undefined {
  if (line.trim() === '') return undefined
  let fields: Record<string, unknown>
  try {
    fields = JSON.parse(line) as Record<string, unknown>
  } catch {
    // Of a process that was killed in the middle of a line only its beginning is there.
    // The lab writes there when it starts a process.
    return line.startsWith('{') || line.startsWith('lab: ') ? undefined : line
  }
  const { level, scope, msg, err } = fields
  const said = `${String(msg)} ${typeof err === 'string' ? err : JSON.stringify(err ?? '')}`
  if (/INTERNAL_ERROR|TypeError|RangeError|unhandled/i.test(line)) return said
  if (scope === 'access' || (level !== 'error' && level !== 'fatal')) return undefined
  return EXPECTED.some(expected => expected.test(said)) ? undefined : said
}
