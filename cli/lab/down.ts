/** `culvert lab down`: ends a lab, or cleans up after one that has ended without doing so. */
import type { Command } from 'commander'
import { nameOption, verb } from '../command.ts'
import { print } from '../output.ts'

export function downVerb(): Command {
  return verb({
    name: 'down',
    summary: 'take a lab down and remove everything of it',
    description:
      'Ends applications, agents and ca-server and removes the namespaces and the run directory. Also cleans up ' +
      'what a crashed lab has left. When there is nothing, that is said and is no error.',
    examples: [['culvert lab down', 'the default lab']],
  })
    .addOption(nameOption())
    .action(async ({ name }: { name: string }) => {
      const { downLab } = await import('../../lab/lab.ts')
      const done = await downLab(name)
      if (done === undefined) print(`lab '${name}' is not up, and nothing is left of it`)
      else if (done === 'down') print(`lab '${name}' is down`)
      else
        print(
          `lab '${name}' had ended without cleaning up: ` +
            `${done.processes} processes and ${done.namespaces} namespaces removed`,
        )
    })
}
