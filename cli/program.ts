/** The `culvert` command: finds the verb, runs it, and turns what was thrown into a message and an exit status. */
import { CommanderError, type Command } from 'commander'
import { VERSION } from '../lib/version.ts'
import { agentCommand } from './agent/agent.ts'
import { verb } from './command.ts'
import { checkVerb } from './cluster/check.ts'
import { installVerb } from './cluster/install.ts'
import { statusVerb } from './cluster/status.ts'
import { uninstallVerb } from './cluster/uninstall.ts'
import { upgradeCommand } from './cluster/upgrade.ts'
import { labCommand } from './lab/lab.ts'
import { EXIT, fail, note } from './output.ts'

function program(): Command {
  return verb({
    name: 'culvert',
    summary: '',
    description:
      'Culvert gives every connection between enrolled Kubernetes pods mutual TLS, with no sidecar and no change to ' +
      'the application, and proves what is covered.',
    examples: [
      ['culvert lab up', 'try it on this machine, no cluster needed'],
      ['culvert lab --help', 'what can be done there'],
      ['culvert check', 'whether your cluster can have it'],
      ['culvert install', 'put it there'],
      ['culvert status', 'who is in the mesh'],
    ],
  })
    .enablePositionalOptions()
    .version(VERSION, '--version', 'print the version')
    .addCommand(labCommand())
    .addCommand(checkVerb())
    .addCommand(installVerb())
    .addCommand(statusVerb())
    .addCommand(upgradeCommand())
    .addCommand(uninstallVerb())
    .addCommand(agentCommand())
}

/** Runs the verb that the words name; gives the exit status. What went wrong has been said. */
export async function runCulvert(words: readonly string[]): Promise<number> {
  const culvert = program()
  try {
    await culvert.parseAsync(words, { from: 'user' })
    return Number(process.exitCode ?? EXIT.ok)
  } catch (err) {
    if (!(err instanceof CommanderError)) return fail(err)
    // Help that was asked for is no error; asked for nothing, it is. What commander had to say it has said.
    const isUsage = err.exitCode !== 0
    if (isUsage && err.code !== 'commander.help') note(`hint: ${commandLine(culvert, words)} --help`)
    return isUsage ? EXIT.usage : EXIT.ok
  }
}

/** The command as far as its words are verbs. */
function commandLine(culvert: Command, given: readonly string[]): string {
  const words = ['culvert']
  let at = culvert
  for (const word of given) {
    const found = at.commands.find(command => command.name() === word)
    if (!found) break
    words.push(word)
    at = found
  }
  return words.join(' ')
}
