/** `culvert lab exec`: a program in a pod's network, otherwise as if it were started right here. */
import type { Command } from 'commander'
import { CulvertError } from '../../lib/errors.ts'
import { afterDashes, nameOption, verb } from '../command.ts'
import { runInForeground } from '../run-child.ts'

const EXAMPLE = 'culvert lab exec client -- curl -s http://10.98.2.2:8080/'

export function execVerb(): Command {
  return verb({
    name: 'exec',
    summary: "run a program in a pod's network",
    description:
      "Runs any program of this machine in a pod's network namespace. Standard streams and the terminal pass " +
      "through, signals are passed on, and the program's exit status becomes this command's (127: not found).",
    examples: [
      [EXAMPLE, 'a request'],
      ['culvert lab exec shop/client -- bash', 'a shell in the pod'],
      ['culvert lab exec client -- nc -N 10.98.2.2 7002 <file', 'a file to the sink'],
    ],
  })
    .addOption(nameOption())
    .argument('<pod>', 'NAME, or NAMESPACE/NAME')
    .argument('<command...>', 'program and arguments, after --')
    .passThroughOptions()
    .action(async (pod: string, words: string[], { name }: { name: string }) => {
      // What comes after the pod is passed through untouched, and so is the `--` before it.
      const command = words[0] === '--' ? words.slice(1) : words
      if (command.length === 0) throw new CulvertError('INPUT', 'no program to run', { hint: EXAMPLE })
      const { openLab } = await import('../../lab/lab.ts')
      process.exitCode = await runInForeground(await openLab(name).podArgv(pod, afterDashes(command)))
    })
}
