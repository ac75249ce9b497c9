/** `culvert lab kill`: what a fault would do to a part of the lab. */
import { constants } from 'node:os'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { nameOption, verb } from '../command.ts'
import { print } from '../output.ts'

export function killVerb(): Command {
  return verb({
    name: 'kill',
    summary: 'signal an agent or the ca-server, as a fault would',
    description: 'Sends a signal to a part of the lab. When that ends it, the lab starts it again at once.',
    examples: [
      ['culvert lab kill agent-node-a', 'kill -9'],
      ['culvert lab kill ca-server --signal STOP', 'it hangs, until --signal CONT'],
    ],
  })
    .addOption(nameOption())
    .addOption(new Option('--signal <signal>', 'its name').argParser(signalName).default('SIGKILL', 'KILL'))
    .argument('<part>', 'agent-NODE or ca-server')
    .action(async (part: string, { name, signal }: { name: string; signal: NodeJS.Signals }) => {
      const { openLab } = await import('../../lab/lab.ts')
      const { pid } = await openLab(name).kill(part, signal)
      print(`${part} (pid ${pid}) got ${signal}`)
    })
}

function signalName(text: string): string {
  const name = `SIG${text.toUpperCase().replace(/^SIG/, '')}`
  if (!Object.hasOwn(constants.signals, name)) throw new InvalidArgumentError(`'${text}' is not a signal`)
  return name
}
