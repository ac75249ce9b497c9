/** `culvert agent`: questions to the agent of a node. */
import type { Command } from 'commander'
import { verb } from '../command.ts'
import { rulesVerb } from './rules.ts'

export function agentCommand(): Command {
  return verb({
    name: 'agent',
    summary: 'questions to the agent of a node',
    description: 'Asks the agent of a node what it does there.',
    examples: [['culvert agent rules --print client', 'what the kernel was told about a pod, and why']],
  })
    .enablePositionalOptions()
    .addCommand(rulesVerb())
}
