/** Building the whole network of a lab at its start, as much as possible at once. */
import type { Cluster, LabPod } from '../cluster/cluster.ts'
import { netnsName } from '../names.ts'
import { addNetns, ipIn, setSysctls } from '../net/namespaces.ts'
import {
  BASE_SYSCTLS,
  controlPlaneBatch,
  fabricBatch,
  NODE_SYSCTLS,
  nodeBatch,
  podBatch,
  podLinkBatch,
} from '../net/topology.ts'

/** Makes the namespaces of fabric, control plane, nodes and pods, and joins them. Throws `DENIED` or `LAB`. */
export async function buildNetwork(cluster: Cluster, pods: readonly LabPod[]): Promise<void> {
  const { lab, nodes } = cluster
  const fabric = netnsName(lab, 'fabric')
  const controlPlane = netnsName(lab, 'cp')
  const plans = pods.flatMap(({ plan }) => plan ?? [])
  const plain = [fabric, controlPlane, ...plans.map(({ netns }) => netns)]
  await addNetns([...plain, ...nodes.map(({ netns }) => netns)])
  // Before there are links: a link takes its settings from its namespace's when it is made.
  await Promise.all([
    ...plain.map(netns => setSysctls(netns, BASE_SYSCTLS)),
    ...nodes.map(({ netns }) => setSysctls(netns, NODE_SYSCTLS)),
  ])
  await ipIn(fabric, fabricBatch(nodes, controlPlane))
  const linksOf = (index: number) => plans.filter(plan => plan.nodeIndex === index).flatMap(podLinkBatch)
  await Promise.all([
    ipIn(controlPlane, controlPlaneBatch(nodes)),
    ...nodes.map(node => ipIn(node.netns, [...nodeBatch(node, nodes), ...linksOf(node.index)])),
  ])
  await Promise.all(plans.map(plan => ipIn(plan.netns, podBatch(plan))))
}
