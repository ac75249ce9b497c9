/** The `culvert` command: finds the verb, runs it, and turns what was thrown into a message and an exit status. */
import { CommanderError } from 'commander'
import { VERSION } from '../lib/version.ts'
import { agentCommand } from './agent/agent.ts'
import { verb } from './command.ts'
import { labCommand } from './lab/lab.ts'
import { EXIT, fail, note } from './output.ts'

const culvert = verb({
  name: 'culvert',
  summary: '',
  description:
    'Culvert gives every connection between enrolled Kubernetes pods mutual TLS, with no sidecar and no change to ' +
    'the application, and proves what is covered.',
  examples: [
    ['culvert lab up', 'try it on this machine, no cluster needed'],
    ['culvert lab --help', 'what can be done there'],
  ],
})
  .enablePositionalOptions()
  .version(VERSION, '--version', 'print the version')
  .addCommand(labCommand())
  .addCommand(agentCommand())

try {
  await culvert.parseAsync()
} catch (err) {
  if (err instanceof CommanderError) {
    // Help that was asked for is no error; asked for nothing, it is. What commander had to say it has said.
    const isUsage = err.exitCode !== 0
    if (isUsage && err.code !== 'commander.help') note(`hint: ${commandLine()} --help`)
    process.exitCode = isUsage ? EXIT.usage : EXIT.ok
  } else process.exitCode = fail(err)
}

/** The command as far as its words are verbs. */
function commandLine(): string {
  const words = ['culvert']
  let at = culvert
  for (const word of process.argv.slice(2)) {
    const found = at.commands.find(command => command.name() === word)
    if (!found) break
    words.push(word)
    at = found
  }
  return words.join(' ')
}
