/** `culvert lab`: the verbs of the one-machine lab, each from its own file. */
import type { Command } from 'commander'
import { verb } from '../command.ts'
import { addPodVerb } from './add-pod.ts'
import { annotateVerb } from './annotate.ts'
import { delPodVerb } from './del-pod.ts'
import { downVerb } from './down.ts'
import { execVerb } from './exec.ts'
import { killVerb } from './kill.ts'
import { logsVerb } from './logs.ts'
import { pcapVerb } from './pcap.ts'
import { replaceAgentVerb } from './replace-agent.ts'
import { statusVerb } from './status.ts'
import { upVerb } from './up.ts'

export function labCommand(): Command {
  const lab = verb({
    name: 'lab',
    summary: 'a cluster of network namespaces on this machine',
    description:
      'Builds nodes and pods out of network namespaces on this machine, with a real ca-server, a real agent per ' +
      'node and real applications: what a cluster would do with Culvert, without a cluster.',
    examples: [
      ['culvert lab up --detach', 'two nodes, four pods, all ready'],
      ['culvert lab status', 'what there is, and who is in the mesh'],
      ['culvert lab exec client -- curl -s http://10.98.2.2:8080/', 'a request from one pod to another'],
      ['culvert lab pcap', 'what of it is seen between the nodes'],
      ['culvert lab down', 'nothing is left'],
    ],
  }).enablePositionalOptions()
  const verbs = [
    upVerb(),
    statusVerb(),
    execVerb(),
    pcapVerb(),
    logsVerb(),
    addPodVerb(),
    delPodVerb(),
    annotateVerb(),
    replaceAgentVerb(),
    killVerb(),
    downVerb(),
  ]
  for (const command of verbs) lab.addCommand(command)
  return lab
}
