/** What the command line says. */
import { CulvertError } from '../../lib/errors.ts'

export interface SoakArgs {
  readonly minutes: number
  readonly seed: number
  readonly everySeconds: number
  readonly pauses: number
  readonly isJson: boolean
  readonly html: string | undefined
}

export const HELP = `usage: npm run soak -- [--minutes N] [--seed S] [--every SECONDS] [--pauses N] [--json] [--html FILE]

Builds a lab of two nodes, sends mixed traffic between its pods, rotates certificates, and kills, replaces, adds, removes
and stops what there is every few seconds. At the end every byte, failure, descriptor and megabyte must be accounted for.

  --minutes N      how long (5)
  --seed S         the same seed does the same things in the same order (the time of day)
  --every SECONDS  between two disturbances, on average (8)
  --pauses N       times as long as at full load between two connections: a lighter one (1)
  --json           one JSON object instead of the summary
  --html FILE      memory and descriptors over time, as a page
  --help           this text

Exit status: 0 when all is accounted for, 1 when something is not, 2 for a wrong argument, 69 when a tool is missing, 130
when interrupted.
`

/** Undefined: help was asked for. Throws `INPUT` naming the argument that is wrong. */
export function parseArgs(args: readonly string[], nowMs = Date.now()): SoakArgs | undefined {
  const values = new Map<string, string>()
  const rest = [...args]
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    if (name === '--help') return undefined
    const [flag = '', inline] = name.split(/=(.*)/s)
    if (!FLAGS.has(flag)) throw new CulvertError('INPUT', `unknown argument '${name}'`)
    const value = flag === '--json' ? 'yes' : (inline ?? rest.shift())
    if (value === undefined) throw new CulvertError('INPUT', `${flag} needs a value`)
    values.set(flag, value)
  }
  const number = (flag: string, least: number, most: number): number | undefined => {
    const text = values.get(flag)
    if (text === undefined) return undefined
    const value = Number(text)
    if (/^\d+(\.\d+)?$/.test(text) && value >= least && value <= most) return value
    throw new CulvertError('INPUT', `${flag} is a number from ${least} to ${most}, not '${text}'`)
  }
  return {
    minutes: number('--minutes', 0.2, 7 * 1440) ?? 5,
    seed: Math.floor(number('--seed', 0, 0xffff_ffff) ?? nowMs % 0xffff_ffff),
    everySeconds: number('--every', 1, 3600) ?? 8,
    pauses: number('--pauses', 0.1, 1000) ?? 1,
    isJson: values.has('--json'),
    html: values.get('--html'),
  }
}

const FLAGS = new Set(['--minutes', '--seed', '--every', '--pauses', '--json', '--html'])
