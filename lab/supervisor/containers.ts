/**
 * A pod's containers: plain processes in the pod's namespace, ended with the pod and started again when they
 * end, like a kubelet does. There are no images in a lab: a container without a command is the lab's own
 * application server, whatever its image is called.
 */
import type { KubeContainer } from '../../lib/kube/objects.ts'
import type { LabPod } from '../cluster/cluster.ts'
import { inNetnsArgv } from '../net/namespaces.ts'
import { baseEnv, programArgv, programEnv } from './context.ts'
import { KeptProcess } from './kept-process.ts'

/** A kubelet waits 10 s, then twice as long each time; a lab is looked at by someone. */
function containerRestartDelayMs(restart: number): number {
  return Math.min(30_000, 500 * 2 ** (restart - 1))
}

export function containersOf(labPod: LabPod, logFile: string, changed: () => void): KeptProcess[] {
  const { pod, netns } = labPod
  const { namespace = 'default', name } = pod.metadata
  return pod.spec.containers.map(container => {
    const { command = [], args = [] } = container
    const isApp = command.length === 0
    const argv = isApp ? programArgv('lab/app/main.ts') : command
    return new KeptProcess({
      name: `${namespace}/${name} ${container.name}`,
      argv: inNetnsArgv(netns, [...argv, ...args]),
      env: { ...(isApp ? programEnv() : baseEnv()), ...podEnv(labPod), ...envOf(container) },
      logFile,
      restartDelayMs: containerRestartDelayMs,
      tellsReady: isApp,
      isGroup: true,
      changed,
    })
  })
}

/** What the downward API would give, under the names that everyone uses. */
function podEnv({ pod, node }: LabPod): Record<string, string> {
  return {
    HOSTNAME: pod.metadata.name,
    POD_NAME: pod.metadata.name,
    POD_NAMESPACE: pod.metadata.namespace ?? 'default',
    POD_IP: pod.status.podIPs[0] ?? '',
    NODE_NAME: node,
  }
}

function envOf(container: KubeContainer): Record<string, string> {
  return Object.fromEntries((container.env ?? []).map(({ name, value = '' }) => [name, value]))
}
