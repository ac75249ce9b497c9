/** `culvert lab pcap`: what is on the wire between the nodes, to read or to keep. */
import { closeSync, openSync } from 'node:fs'
import { spawn } from 'node:child_process'
import type { Command } from 'commander'
import { exitStatus } from '../../lab/run.ts'
import { CulvertError } from '../../lib/errors.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import { afterDashes, nameOption, verb } from '../command.ts'
import { note } from '../output.ts'
import { runInForeground } from '../run-child.ts'

interface PcapOptions {
  readonly name: string
  readonly link?: string
  readonly write?: string
}

export function pcapVerb(): Command {
  return verb({
    name: 'pcap',
    summary: 'what is on the wire between the nodes',
    description:
      "Captures a node's link to the other nodes until Ctrl-C: readable through tcpdump, or as a pcap file. " +
      "Every packet that the link saw is in it. Further arguments are tcpdump's (options or a filter), for reading.",
    examples: [
      ['culvert lab pcap', "the first node's link, readable"],
      ['culvert lab pcap --link node-b -- -A port 15008', "with tcpdump's own options and filter"],
      ['culvert lab pcap -w wire.pcap', 'to a file, for Wireshark'],
    ],
  })
    .addOption(nameOption())
    .option('--link <node>', 'whose link (default: the first node)')
    .option('-w, --write <file>', "write a pcap file; '-' is standard output")
    .argument('[tcpdump...]', 'options and filter for tcpdump, after --')
    .passThroughOptions()
    .action(pcap)
}

async function pcap(tcpdump: string[], { name, link, write }: PcapOptions): Promise<void> {
  const { openLab } = await import('../../lab/lab.ts')
  const lab = openLab(name)
  const nodes = (await lab.status()).nodes.map(node => node.name)
  const node = link ?? nodes[0]
  if (node === undefined || !nodes.includes(node))
    throw new CulvertError('LAB', `lab '${name}' has no node '${link}'`, {
      hint: `it has ${nodes.join(', ')}`,
    })
  const argv = lab.captureArgv(node)
  note(`culvert: capturing the link of ${node}; Ctrl-C ends it`)
  if (write !== undefined) process.exitCode = await capture(argv, write)
  else process.exitCode = await read(argv, afterDashes(tcpdump))
}

async function capture(argv: readonly string[], file: string): Promise<number> {
  if (file === '-') return runInForeground(argv)
  const fd = openSync(file, 'w', 0o600)
  try {
    return await runInForeground(argv, { stdio: ['ignore', fd, 'inherit'] })
  } finally {
    closeSync(fd)
  }
}

/** Through tcpdump. Ctrl-C ends the capture; tcpdump shows what had still come, and ends with its input. */
async function read(argv: readonly string[], tcpdump: readonly string[]): Promise<number> {
  const { ensureTools } = await import('../setup/tools.ts')
  ensureTools(['tcpdump'], note)
  const [command = '', ...args] = argv
  const isolated = { env: toolEnv(), detached: true } as const // the terminal's Ctrl-C is for us alone
  const source = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...isolated })
  const reader = spawn('tcpdump', ['-n', '-l', '-r', '-', ...tcpdump], {
    stdio: [source.stdout, 'inherit', 'inherit'],
    ...isolated,
  })
  const stop = () => source.kill('SIGTERM')
  source.once('error', err => note(`culvert: ${err.message}`))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop)
  try {
    return await new Promise((resolve, reject) => {
      reader.once('error', err => reject(new CulvertError('TOOL', 'could not run tcpdump', { cause: err })))
      reader.once('exit', (code, signal) => resolve(exitStatus(code, signal)))
    })
  } finally {
    stop()
  }
}
