/** The lab's state, put together for whoever asks. */
import type { LabPod } from '../cluster/cluster.ts'
import { nodeIps, podCidrs } from '../net/plan.ts'
import type { LabStatus, NodeStatus, PartStatus, PodPlace, PodStatus, ServiceStatus } from '../status.ts'
import type { MeshState } from './agents.ts'
import type { KeptProcess } from './kept-process.ts'
import type { Supervisor } from './supervisor.ts'

export async function statusOf(supervisor: Supervisor): Promise<LabStatus> {
  const { options, parts, cluster, state, warnings, fileProblem } = supervisor
  const told = new Map(
    await Promise.all([...parts.agents].map(async ([name, agent]) => [name, await agent.pods()] as const)),
  )
  return {
    name: options.settings.name,
    run: options.paths.run,
    file: options.file,
    rootless: options.isRootless,
    supervisor: state.supervisor,
    startedAt: supervisor.startedAt.toISOString(),
    trustDomain: options.settings.trustDomain,
    caServer: partStatus(parts.caServer),
    nodes: cluster.nodes.map(({ name, index, netns }): NodeStatus => {
      const agent = parts.agents.get(name)
      return {
        name,
        netns,
        ips: nodeIps(index),
        podCidrs: podCidrs(index),
        ...(agent && {
          agent: {
            ...partStatus(agent.current),
            answers: told.get(name) !== undefined,
            draining: agent.processes().length - 1,
          },
        }),
      }
    }),
    pods: cluster.pods().map(pod => podStatus(pod, supervisor.pods.containers(pod.key), told)),
    services: servicesOf(supervisor),
    ...(fileProblem === undefined ? {} : { fileProblem }),
    warnings: [...warnings],
  }
}

function partStatus(process: KeptProcess | undefined): PartStatus {
  return {
    ...(process?.ref && { pid: process.ref.pid }),
    restarts: process?.restarts ?? 0,
    ...(process?.lastExit !== undefined && { lastExit: process.lastExit }),
  }
}

/** The pods as they are, at once: no agent is asked. */
export function podPlaces({ cluster }: Supervisor): PodPlace[] {
  return cluster.pods().map(podPlace)
}

function podPlace({ pod: { metadata, spec, status }, node, netns }: LabPod): PodPlace {
  return {
    namespace: metadata.namespace ?? 'default',
    name: metadata.name,
    uid: metadata.uid,
    node,
    netns,
    ips: status.podIPs,
    serviceAccount: spec.serviceAccountName,
    phase: status.phase,
    ready: status.ready,
    terminating: metadata.deletionTimestamp !== undefined,
  }
}

function podStatus(
  labPod: LabPod,
  containers: readonly KeptProcess[],
  told: ReadonlyMap<string, MeshState[] | undefined>,
): PodStatus {
  const { pod, node, plan } = labPod
  const { metadata, spec } = pod
  const said = told.get(node)?.find(({ uid }) => uid === metadata.uid)
  const nobody = plan === undefined ? 'host-network' : told.get(node) === undefined ? 'no-agent' : 'unknown'
  return {
    ...podPlace(labPod),
    mesh: said?.state ?? nobody,
    meshDetail: said?.detail ?? '',
    containers: containers.map((container, at) => ({
      name: spec.containers[at]?.name ?? container.name,
      ...partStatus(container),
    })),
  }
}

function servicesOf({ cluster }: Supervisor): ServiceStatus[] {
  const objects = cluster.objects()
  return objects.flatMap(object => {
    if (object.kind !== 'Service') return []
    const { namespace = 'default', name } = object.metadata
    const slices = objects.filter(
      slice =>
        slice.kind === 'EndpointSlice' &&
        slice.metadata.namespace === namespace &&
        slice.serviceName === name,
    )
    return {
      namespace,
      name,
      clusterIPs: object.spec.clusterIPs,
      ports: object.spec.ports.map(({ port, targetPort }) => `${port}→${targetPort}`),
      endpoints: slices.flatMap(slice =>
        slice.kind === 'EndpointSlice'
          ? slice.endpoints.filter(({ ready }) => ready).flatMap(({ addresses }) => addresses)
          : [],
      ),
    }
  })
}
