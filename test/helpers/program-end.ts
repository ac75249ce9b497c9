/** How the programs among the tests end when something is wrong: what it was, what may help, and an exit status. */
import { CulvertError, errorText } from '../../lib/errors.ts'

/** Exit status of a program that lacks another one (sysexits.h: EX_UNAVAILABLE). */
const EX_UNAVAILABLE = 69

/** Says on stderr why `name` ends, and gives its exit status: 2 for what it was told, 69 for a missing tool, else 1. */
export function failureStatus(name: string, err: unknown): number {
  process.stderr.write(`\n${name}: ${errorText(err)}\n`)
  if (!(err instanceof CulvertError)) return 1
  if (err.hint !== undefined) process.stderr.write(`  ${err.hint}\n`)
  return err.code === 'INPUT' ? 2 : err.code === 'TOOL' ? EX_UNAVAILABLE : 1
}
