/** `culvert lab del-pod`: takes a pod away as Kubernetes does, with its grace period. */
import { Option, type Command } from 'commander'
import { nameOption, seconds, verb } from '../command.ts'
import { print } from '../output.ts'

export function delPodVerb(): Command {
  return verb({
    name: 'del-pod',
    summary: 'delete a pod of a running lab',
    description:
      'Marks the pod as terminating, ends its containers with SIGTERM and after the grace period with SIGKILL, ' +
      'and removes its network. Returns when nothing of it is left.',
    examples: [['culvert lab del-pod server-2', 'the other server takes over']],
  })
    .addOption(nameOption())
    .addOption(
      new Option('--grace <seconds>', "instead of the pod's own grace period (30 s by default)").argParser(
        seconds,
      ),
    )
    .argument('<pod>', 'NAME, or NAMESPACE/NAME')
    .action(async (pod: string, { name, grace }: { name: string; grace?: number }) => {
      const { openLab } = await import('../../lab/lab.ts')
      await openLab(name).delPod(pod, grace)
      print(`pod ${pod} is gone`)
    })
}
