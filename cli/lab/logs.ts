/** `culvert lab logs`: what agents, the ca-server, pods and the lab itself have said. */
import { closeSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Lab } from '../../lab/lab.ts'
import { CulvertError } from '../../lib/errors.ts'
import { nameOption, verb } from '../command.ts'
import { styled } from '../output.ts'

const CHUNK_BYTES = 64 * 1024
const POLL_MS = 100

export function logsVerb(): Command {
  return verb({
    name: 'logs',
    summary: 'what agents, ca-server and pods have said',
    description:
      'Prints the log of one part of the lab, or of all parts with their name in front of each line. Logs of agents ' +
      'and ca-server are JSON, one object a line.',
    examples: [
      ['culvert lab logs agent-node-a', 'one agent'],
      ['culvert lab logs ca-server -f', 'as it comes, until Ctrl-C'],
      ['culvert lab logs server', "a pod's containers"],
      ['culvert lab logs -f', 'everything'],
    ],
  })
    .addOption(nameOption())
    .option('-f, --follow', 'go on with what is said from now on')
    .argument('[part]', 'agent-NODE, ca-server, lab, or a pod')
    .action(logs)
}

async function logs(
  part: string | undefined,
  { name, follow }: { name: string; follow?: boolean },
): Promise<void> {
  const { openLab } = await import('../../lab/lab.ts')
  const lab = openLab(name)
  const tails = (await filesOf(lab, part)).map(file => new Tail(file, part === undefined))
  // Whoever reads may stop reading; that is no failure.
  process.stdout.on('error', () => process.exit(0))
  for (;;) {
    for (const tail of tails) for (const text of tail.read()) process.stdout.write(text)
    if (!follow) break
    await sleep(POLL_MS)
  }
  for (const tail of tails) tail.close()
}

async function filesOf(lab: Lab, part: string | undefined): Promise<string[]> {
  const names = readdirSync(lab.paths.logs)
    .filter(file => file.endsWith('.log'))
    .map(file => basename(file, '.log'))
    .sort()
  if (part === undefined) return names.map(name => join(lab.paths.logs, `${name}.log`))
  const found = names.includes(part) ? part : await podLog(lab, part, names)
  return [join(lab.paths.logs, `${found}.log`)]
}

/** A pod's log is called like its namespace, without what all namespaces of the lab begin with. */
async function podLog(lab: Lab, part: string, names: readonly string[]): Promise<string> {
  const pods = (await lab.status()).pods.filter(
    ({ namespace, name }) => part === name || part === `${namespace}/${name}`,
  )
  const logOf = pods.map(({ netns, namespace, name }) => [
    netns.slice(`culvert-${lab.name}-`.length),
    `${namespace}-${name}`,
  ])
  const found = logOf.length === 1 ? logOf[0]!.find(name => names.includes(name)) : undefined
  if (found !== undefined) return found
  throw new CulvertError('LAB', `there is no log of '${part}'`, { hint: `there are ${names.join(', ')}` })
}

/** One file, read from where it was left; whole lines when they get a name in front. */
class Tail {
  readonly #fd: number
  readonly #prefix: string
  readonly #buffer = Buffer.alloc(CHUNK_BYTES)
  #at = 0
  #rest = ''

  constructor(file: string, isNamed: boolean) {
    this.#fd = openSync(file, 'r')
    this.#prefix = isNamed ? `${styled('dim', `${basename(file, '.log')} |`)} ` : ''
  }

  *read(): Generator<string | Buffer> {
    if (fstatSync(this.#fd).size < this.#at) this.#at = 0 // it was emptied
    for (;;) {
      const length = readSync(this.#fd, this.#buffer, 0, CHUNK_BYTES, this.#at)
      if (length === 0) return
      this.#at += length
      const chunk = this.#buffer.subarray(0, length)
      if (!this.#prefix) {
        yield Buffer.from(chunk)
        continue
      }
      const lines = (this.#rest + chunk.toString()).split('\n')
      this.#rest = lines.pop() ?? ''
      if (lines.length > 0) yield lines.map(line => `${this.#prefix}${line}\n`).join('')
    }
  }

  close(): void {
    closeSync(this.#fd)
  }
}
