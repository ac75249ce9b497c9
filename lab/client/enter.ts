/**
 * Running programs inside a lab from outside. A lab of root's is entered by its namespaces' names; a lab without
 * root has those names in a mount namespace of its own, so that is entered first.
 */
import { inNetnsArgv } from '../net/namespaces.ts'
import type { LabState } from '../state.ts'

/** The command line that runs `argv` in one of the lab's namespaces, in the caller's working directory. */
export function enterArgv(state: LabState, netns: string, argv: readonly string[]): string[] {
  const inside = inNetnsArgv(netns, argv)
  if (state.userNamespace === undefined) return inside
  const target = String(state.supervisor.pid)
  return [
    'nsenter',
    `--target=${target}`,
    '--user',
    '--mount',
    '--preserve-credentials',
    `--wd=${process.cwd()}`,
    '--',
    ...inside,
  ]
}
