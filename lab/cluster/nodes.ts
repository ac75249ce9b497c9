/** The objects that stand for the lab's nodes and for the agents on them, as a real cluster would show them. */
import type { KubeNode, KubePod, ObjectMeta } from '../../lib/kube/objects.ts'
import { nodeIps, podCidrs } from '../net/plan.ts'
import type { NodePlan } from '../net/topology.ts'

/** Who the agents are, in the cluster's eyes and in their tokens. */
export const AGENT_NAMESPACE = 'culvert-system'
export const AGENT_SERVICE_ACCOUNT = 'culvert-agent'

export interface AgentPod {
  readonly name: string
  readonly uid: string
  readonly nodeUid: string
}

/** A Node with the addresses and ranges that the lab has given it. */
export function nodeObject(plan: NodePlan, metadata: ObjectMeta): KubeNode {
  return {
    kind: 'Node',
    metadata: {
      ...metadata,
      labels: { 'kubernetes.io/hostname': plan.name, 'kubernetes.io/os': 'linux', ...metadata.labels },
    },
    spec: { podCIDRs: podCidrs(plan.index) },
    status: {
      addresses: [
        ...nodeIps(plan.index).map(address => ({ type: 'InternalIP', address })),
        { type: 'Hostname', address: plan.name },
      ],
    },
  }
}

/** An agent as the pod that it is in a cluster: on the host's network. */
export function agentPodObject(plan: NodePlan, { name, uid }: AgentPod): KubePod {
  const ips = nodeIps(plan.index)
  return {
    kind: 'Pod',
    metadata: {
      name,
      namespace: AGENT_NAMESPACE,
      uid,
      ownerReferences: [{ kind: 'DaemonSet', name: 'culvert-agent', controller: true }],
    },
    spec: {
      nodeName: plan.name,
      serviceAccountName: AGENT_SERVICE_ACCOUNT,
      hostNetwork: true,
      containers: [{ name: 'agent' }],
      probePorts: [],
    },
    status: { phase: 'Running', podIPs: ips, hostIP: ips[0], ready: true },
  }
}
