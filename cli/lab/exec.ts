/** `culvert lab exec`: a program in a pod's network, otherwise as if it were started right here. */
import type { Command } from 'commander'
import { nameOption, verb } from '../command.ts'
import { runInForeground } from '../run-child.ts'

export function execVerb(): Command {
  return verb({
    name: 'exec',
    summary: "run a program in a pod's network",
    description:
      "Runs any program of this machine in a pod's network namespace. Standard streams and the terminal pass " +
      "through, signals are passed on, and the program's exit status becomes this command's (127: not found).",
    examples: [
      ['culvert lab exec client -- curl -s http://10.98.2.2:8080/', 'a request'],
      ['culvert lab exec shop/client -- bash', 'a shell in the pod'],
      ['culvert lab exec client -- nc -N 10.98.2.2 7002 <file', 'a file to the sink'],
    ],
  })
    .addOption(nameOption())
    .argument('<pod>', 'NAME, or NAMESPACE/NAME')
    .argument('<command...>', 'program and arguments, after --')
    .passThroughOptions()
    .action(async (pod: string, command: string[], { name }: { name: string }) => {
      const { openLab } = await import('../../lab/lab.ts')
      process.exitCode = await runInForeground(await openLab(name).podArgv(pod, command))
    })
}
