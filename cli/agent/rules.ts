/** `culvert agent rules`: what the kernel was told about a pod, line by line, and why. */
import { Option, type Command } from 'commander'
import { CulvertError } from '../../lib/errors.ts'
import { nameOption, verb } from '../command.ts'
import { print } from '../output.ts'

interface RulesOptions {
  readonly print: string
  readonly name: string
  readonly admin?: string
}

export function rulesVerb(): Command {
  return verb({
    name: 'rules',
    summary: "a pod's packet rules, why each exists, and what it has counted",
    description:
      'Asks the agent of the pod’s node for the rules that stand in the pod’s network namespace: what each matches, ' +
      'the reason it exists, how often it has matched, and whatever is not as it should be.',
    examples: [
      ['culvert agent rules --print client', 'of a pod of the lab'],
      ['culvert agent rules --print shop/client --admin /run/culvert/admin.sock', 'asked of one agent'],
    ],
  })
    .requiredOption('--print <pod>', 'NAME or NAMESPACE/NAME')
    .addOption(nameOption())
    .addOption(new Option('--admin <socket>', 'Unix socket of an agent’s admin interface, instead of a lab'))
    .action(async (options: RulesOptions) => {
      const path = `/rules?pod=${encodeURIComponent(options.print)}`
      const { status, body } =
        options.admin === undefined ? await askLab(options, path) : await ask(options.admin, path)
      if (status !== 200)
        throw new CulvertError(
          'LAB',
          `the agent did not tell the rules of '${options.print}': ${body.trim()}`,
        )
      print(body.trimEnd())
    })
}

async function askLab(
  { name, print: pod }: RulesOptions,
  path: string,
): Promise<{ status: number; body: string }> {
  const { openLab } = await import('../../lab/lab.ts')
  const lab = openLab(name)
  const { node } = await lab.pod(pod)
  return lab.agentAdmin(node, path)
}

async function ask(socket: string, path: string): Promise<{ status: number; body: string }> {
  const { requestUnix } = await import('../../lab/http.ts')
  return requestUnix(socket, { path })
}
