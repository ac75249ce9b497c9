/**
 * A pod's containers: plain processes in the pod's namespace, ended with the pod and started again when they
 * end, like a kubelet does. A container without a command, or of the image `culvert.dev/lab-app`, is the lab's
 * own application server.
 */
import type { KubeContainer } from '../../lib/kube/objects.ts'
import type { LabPod } from '../cluster/cluster.ts'
import { inNetnsArgv } from '../net/namespaces.ts'
import { baseEnv, programArgv } from './context.ts'
import { KeptProcess } from './kept-process.ts'

export const LAB_APP_IMAGE = 'culvert.dev/lab-app'

/** A kubelet waits 10 s, then twice as long each time; a lab is looked at by someone. */
function containerRestartDelayMs(restart: number): number {
  return Math.min(30_000, 500 * 2 ** (restart - 1))
}

export function containersOf(labPod: LabPod, logFile: string, changed: () => void): KeptProcess[] {
  const { pod, netns } = labPod
  const { namespace = 'default', name } = pod.metadata
  return pod.spec.containers.map(container => {
    const isApp = container.command === undefined && container.image === LAB_APP_IMAGE
    const argv = isApp || container.command === undefined ? programArgv('lab/app/main.ts') : container.command
    return new KeptProcess({
      name: `${namespace}/${name} ${container.name}`,
      argv: inNetnsArgv(netns, [...argv, ...(container.args ?? [])]),
      env: { ...baseEnv(), ...podEnv(labPod), ...envOf(container) },
      logFile,
      restartDelayMs: containerRestartDelayMs,
      tellsReady: container.command === undefined,
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
