/** `culvert lab status`: nodes, pods and services, and who is in the mesh. */
import type { Command } from 'commander'
import type { LabStatus, NodeStatus, PartStatus, PodStatus } from '../../lab/status.ts'
import { jsonOption, nameOption, verb } from '../command.ts'
import { print, printJson, styled, table } from '../output.ts'

export function statusVerb(): Command {
  return verb({
    name: 'status',
    summary: 'what there is in a lab, and who is in the mesh',
    description: 'Shows nodes with their agents, pods with what their agent says of them, and services.',
    examples: [
      ['culvert lab status', 'tables'],
      ['culvert lab status --json', 'everything, with pids, uids and paths'],
    ],
  })
    .addOption(nameOption())
    .addOption(jsonOption())
    .action(async ({ name, json }: { name: string; json?: boolean }) => {
      const { openLab } = await import('../../lab/lab.ts')
      const status = await openLab(name).status()
      if (json) printJson(status)
      else print(statusText(status))
    })
}

/** The status as people read it. */
export function statusText(status: LabStatus): string {
  const { name, rootless, startedAt, run, caServer } = status
  const blocks = [
    `lab ${styled('bold', name)}${rootless ? ' (without root)' : ''}, up since ${startedAt}, files in ${run}`,
    `ca-server ${partText(caServer)}`,
    table([['NODE', 'ADDRESSES', 'PODS FROM', 'AGENT'], ...status.nodes.map(nodeRow)], (cell, column) =>
      column === 3 ? coloured(cell, /^up/) : cell,
    ),
    table(
      [['NAMESPACE', 'POD', 'NODE', 'ADDRESSES', 'STATE', 'MESH'], ...status.pods.map(podRow)],
      (cell, column) =>
        column === 4
          ? coloured(cell, /^ready/)
          : column === 5
            ? coloured(cell, /^enrolled/, /^not-enrolled/)
            : cell,
    ),
  ]
  if (status.services.length > 0)
    blocks.push(
      table([
        ['NAMESPACE', 'SERVICE', 'ADDRESSES', 'PORTS', 'ENDPOINTS'],
        ...status.services.map(service => [
          service.namespace,
          service.name,
          service.clusterIPs.join(' '),
          service.ports.join(' '),
          service.endpoints.join(' '),
        ]),
      ]),
    )
  if (status.fileProblem)
    blocks.push(`${styled('red', 'the lab file is not followed:')} ${status.fileProblem}`)
  if (status.warnings.length > 0)
    blocks.push(status.warnings.map(warning => `${styled('yellow', 'warning:')} ${warning}`).join('\n'))
  return blocks.join('\n\n')
}

function nodeRow({ name, ips, podCidrs, agent }: NodeStatus): string[] {
  const draining = agent && agent.draining > 0 ? `, ${agent.draining} finishing` : ''
  const text = agent ? `${partText(agent)}${agent.answers ? '' : ', does not answer'}${draining}` : 'not ours'
  return [name, ips.join(' '), podCidrs.join(' '), text]
}

function podRow({
  namespace,
  name,
  node,
  ips,
  phase,
  ready,
  terminating,
  mesh,
  meshDetail,
}: PodStatus): string[] {
  const state = terminating ? 'terminating' : ready ? 'ready' : phase.toLowerCase()
  return [namespace, name, node, ips.join(' '), state, meshDetail ? `${mesh} (${meshDetail})` : mesh]
}

function partText({ pid, restarts, lastExit }: PartStatus): string {
  const again = restarts > 0 ? `, started again ${restarts}× (${lastExit})` : ''
  return pid === undefined ? `down${lastExit ? ` (${lastExit})` : ''}` : `up, pid ${pid}${again}`
}

function coloured(cell: string, good: RegExp, plain?: RegExp): string {
  if (good.test(cell)) return styled('green', cell)
  return plain?.test(cell) ? cell : styled('yellow', cell)
}
