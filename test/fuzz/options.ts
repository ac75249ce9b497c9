/** What the command line says. */
import { CulvertError } from '../../lib/errors.ts'

export interface FuzzArgs {
  readonly seconds: number
  readonly cases: number | undefined
  readonly seed: number
  readonly isJson: boolean
  /** Captures to start from beside the recorded ones. */
  readonly corpus: string | undefined
  /** A file that a finding was written to. */
  readonly replay: string | undefined
}

export const HELP = `usage: npm run fuzz -- [--seconds N] [--cases N] [--seed S] [--json] [--corpus DIR] [--replay FILE]

Records real HBONE sessions, damages them, and throws them at a live data plane in network namespaces of its own: at its
tunnel port, from a tunnel port that its pods call, and at the ports of captured traffic. Meanwhile an honest client goes
on through the same listener. Needs root; nothing of the machine's own network is touched.

  --seconds N    how long (30)
  --cases N      at most so many cases
  --seed S       the same seed makes the same cases, whatever order they come in (the time of day)
  --json         one JSON object instead of the summary
  --corpus DIR   NAME.client.bin and NAME.server.bin there are damaged too: one side's bytes, below TLS
  --replay FILE  the cases of a finding again, one after the other
  --help         this text

Exit status: 0 when nothing was found, 1 when something was, 2 for a wrong argument, 69 when a tool is missing, 130 when
interrupted.
`

/** Undefined: help was asked for. Throws `INPUT` naming the argument that is wrong. */
export function parseArgs(args: readonly string[], nowMs = Date.now()): FuzzArgs | undefined {
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
  const number = (flag: string, most: number): number | undefined => {
    const text = values.get(flag)
    if (text === undefined) return undefined
    const value = Number(text)
    if (/^\d+$/.test(text) && value <= most) return value
    throw new CulvertError('INPUT', `${flag} is a whole number up to ${most}, not '${text}'`)
  }
  return {
    seconds: number('--seconds', 7 * 86_400) ?? 30,
    cases: number('--cases', 1e9),
    seed: number('--seed', 0xffff_ffff) ?? nowMs % 0xffff_ffff,
    isJson: values.has('--json'),
    corpus: values.get('--corpus'),
    replay: values.get('--replay'),
  }
}

const FLAGS = new Set(['--seconds', '--cases', '--seed', '--json', '--corpus', '--replay'])
