/** `culvert lab up`: in the foreground until Ctrl-C, or detached until `lab down`. */
import { Option, type Command } from 'commander'
import { LOG_LEVELS } from '../../lib/log-level.ts'
import type { Lab } from '../../lab/lab.ts'
import { duration, jsonOption, nameOption, pair, seconds, verb } from '../command.ts'
import { EXIT, isTerminal, note, print, printJson, Steps, styled } from '../output.ts'

interface UpOptions {
  readonly name: string
  readonly file?: string
  readonly detach?: boolean
  readonly json?: boolean
  readonly certTtl?: string
  readonly logLevel: string
  readonly grace: number
  readonly agentEnv?: Record<string, string>
}

export function upVerb(): Command {
  return verb({
    name: 'up',
    summary: 'build a lab and start everything in it',
    description:
      'Builds the lab of a file of Kubernetes objects (by default two nodes, a pod in the mesh on each, and one ' +
      'outside of it), and returns when all pods are ready. Without --detach it stays until Ctrl-C and then takes ' +
      'everything down. The file is followed: what changes in it changes in the lab. ' +
      'What an earlier lab of the same name has left after a crash is cleaned first. Works without root where the ' +
      'machine allows user namespaces.',
    examples: [
      ['culvert lab up', 'the default lab, until Ctrl-C'],
      ['culvert lab up --detach --name two', 'a second one beside it, in the background'],
      ['culvert lab up --file shop.yaml', 'your own pods and services'],
      ['culvert lab up --agent-env DISCOVERY=on-demand', 'agents that hold only what their pods talk to'],
      ['culvert lab up --cert-ttl 20s', 'certificates that are renewed every ten seconds'],
    ],
  })
    .addOption(nameOption())
    .option('--file <file>', 'a lab file: Node, Namespace, ServiceAccount, Pod, Service, EndpointSlice')
    .option('--detach', 'return when it is up and leave it running')
    .addOption(jsonOption())
    .addOption(
      new Option('--cert-ttl <duration>', 'lifetime of certificates (default: 24h)').argParser(duration),
    )
    .addOption(
      new Option('--log-level <level>', 'of agents and ca-server').choices([...LOG_LEVELS]).default('info'),
    )
    .addOption(new Option('--grace <seconds>', 'what an agent gets to end in').argParser(seconds).default(10))
    .addOption(
      new Option(
        '--agent-env <name=value>',
        'a setting of the agents; may be given more than once',
      ).argParser(pair),
    )
    .action(up)
}

async function up(options: UpOptions): Promise<void> {
  const { ensureTools, LAB_TOOLS } = await import('../setup/tools.ts')
  const steps = new Steps(options.json === true)
  const startedAt = performance.now()
  ensureTools(LAB_TOOLS, text => steps.begin(text))
  const interrupted = new AbortController()
  const interrupt = () => interrupted.abort()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt)
  const { startLab } = await import('../../lab/lab.ts')
  let lab: Lab
  try {
    lab = await startLab({
      name: options.name,
      ...(options.file === undefined ? {} : { file: options.file }),
      ...(options.certTtl === undefined ? {} : { certTtl: options.certTtl }),
      logLevel: options.logLevel,
      graceSeconds: options.grace,
      ...(options.agentEnv === undefined ? {} : { agentEnv: options.agentEnv }),
      isTied: options.detach !== true,
      progress: step => steps.begin(step),
      ...(options.detach ? {} : { warn: note }),
      signal: interrupted.signal,
    })
  } catch (err) {
    steps.failed()
    throw err
  }
  steps.done()
  await announce(lab, options, performance.now() - startedAt)
  if (!options.detach) await stayUntilInterrupted(lab, interrupted.signal)
}

async function announce(lab: Lab, options: UpOptions, tookMs: number): Promise<void> {
  const status = await lab.status()
  if (options.json) {
    printJson(status)
    return
  }
  const suffix = options.name === 'default' ? '' : ` --name ${options.name}`
  const server = status.pods.find(({ name }) => name === 'server') ?? status.pods.at(-1)
  const client = status.pods.find(({ name }) => name === 'client') ?? status.pods[0]
  print(
    `lab '${lab.name}' is up in ${(tookMs / 1000).toFixed(1)} s: ` +
      `${count(status.nodes, 'node')}, ${count(status.pods, 'pod')}, ${count(status.services, 'service')}`,
  )
  if (server && client && server !== client)
    print(`try   culvert lab exec${suffix} ${client.name} -- curl -s http://${server.ips[0]}:8080/`)
  print(`see   culvert lab status${suffix}`)
  print(`end   ${options.detach ? `culvert lab down${suffix}` : 'Ctrl-C'}`)
}

function count(things: readonly unknown[], name: string): string {
  return `${things.length} ${name}${things.length === 1 ? '' : 's'}`
}

async function stayUntilInterrupted(lab: Lab, signal: AbortSignal): Promise<void> {
  const didEnd = await lab.ended(signal).then(
    () => true,
    () => false,
  )
  const { downLab } = await import('../../lab/lab.ts')
  if (!didEnd) {
    if (isTerminal(process.stderr)) note(`\n${styled('dim', 'taking the lab down', process.stderr)}`)
    await lab.down()
    return
  }
  // Taken down from elsewhere, or crashed: then something is left.
  if ((await downLab(lab.name)) === undefined) return
  note(`culvert: the supervisor of lab '${lab.name}' has died; what it left is cleaned up`)
  process.exitCode = EXIT.failed
}
