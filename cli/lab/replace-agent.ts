/** `culvert lab replace-agent`: the rollout of a new agent on one node. */
import type { Command } from 'commander'
import { nameOption, verb } from '../command.ts'
import { print } from '../output.ts'

export function replaceAgentVerb(): Command {
  return verb({
    name: 'replace-agent',
    summary: "put a new agent in a node's old one's place",
    description:
      'Starts a second agent beside the one that runs; once it serves every pod, the old one gets SIGTERM and ' +
      'finishes what it has open: what a DaemonSet that surges does in an upgrade.',
    examples: [['culvert lab replace-agent node-a', 'no connection fails meanwhile']],
  })
    .addOption(nameOption())
    .argument('<node>', "the node's name")
    .action(async (node: string, { name }: { name: string }) => {
      const { openLab } = await import('../../lab/lab.ts')
      await openLab(name).replaceAgent(node)
      print(`${node} has a new agent`)
    })
}
