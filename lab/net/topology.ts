/**
 * The lab's network as text for `ip -batch`: a bridge that joins the nodes, and pods behind their node the way
 * routing CNIs do it (a /32 and a /128, a link-local gateway, one route per pod on the node). Pure: nothing
 * here touches the kernel. The host's own network has no part in it.
 */
import { CONTROL_PLANE_IPS, FABRIC_PREFIX, nodeIps, POD_GATEWAY, podCidrs } from './plan.ts'

/** The longest possible metric: whatever else there is comes first. */
const LAST_METRIC = 4_294_967_295

export interface NodePlan {
  readonly name: string
  /** From 1; decides the addresses. */
  readonly index: number
  readonly netns: string
}

export interface PodPlan {
  readonly netns: string
  /** The node's end of the pod's link. */
  readonly link: string
  /** IPv4 before IPv6; either may be absent. */
  readonly ips: readonly string[]
  readonly nodeIndex: number
}

/** For every namespace, before it has any link: addresses are usable at once and reverse paths not judged. */
export const BASE_SYSCTLS: Readonly<Record<string, string>> = {
  'ipv4/conf/all/rp_filter': '0',
  'ipv4/conf/default/rp_filter': '0',
  'ipv6/conf/all/disable_ipv6': '0',
  'ipv6/conf/default/disable_ipv6': '0',
  'ipv6/conf/default/accept_dad': '0',
  'ipv6/conf/default/dad_transmits': '0',
  'ipv6/conf/default/accept_ra': '0',
}

/** For nodes: they forward, and say at once that there is no route, however often they are asked. */
export const NODE_SYSCTLS: Readonly<Record<string, string>> = {
  ...BASE_SYSCTLS,
  'ipv4/ip_forward': '1',
  'ipv6/conf/all/forwarding': '1',
  'ipv6/conf/default/forwarding': '1',
  'ipv4/conf/all/send_redirects': '0',
  'ipv4/conf/default/send_redirects': '0',
  'ipv4/icmp_ratelimit': '0',
  'ipv6/icmp/ratelimit': '0',
}

/** In the fabric: the bridge, and a link named eth0 into each of the namespaces. */
export function fabricBatch(nodes: readonly NodePlan[], controlPlaneNetns: string): string[] {
  const links = [
    { port: 'cp', netns: controlPlaneNetns },
    ...nodes.map(node => ({ port: `node${node.index}`, netns: node.netns })),
  ]
  return [
    'link set lo up',
    'link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0',
    'link set br0 up',
    ...links.flatMap(({ port, netns }) => [
      `link add ${port} type veth peer name eth0 netns ${netns}`,
      `link set ${port} master br0 up`,
    ]),
  ]
}

/** In the control plane: its address, and the ways to the pods, whose data plane may ask from inside them. */
export function controlPlaneBatch(nodes: readonly NodePlan[]): string[] {
  return [
    'link set lo up',
    ...fabricAddresses(CONTROL_PLANE_IPS),
    'link set eth0 up',
    ...nodes.flatMap(routesToPods),
  ]
}

/** On a node: its address, the ways to the other nodes' pods, and an end for everything else. */
export function nodeBatch(node: NodePlan, nodes: readonly NodePlan[]): string[] {
  const others = nodes.filter(other => other.index !== node.index)
  return [
    'link set lo up',
    ...fabricAddresses(nodeIps(node.index)),
    'link set eth0 up',
    ...others.flatMap(routesToPods),
    // Without these an address that nobody has would be looked for until the connection times out.
    ...podCidrs(node.index).map(cidr => `route add unreachable ${cidr} metric ${LAST_METRIC}`),
    ...['0.0.0.0/0', '::/0'].map(all => `route add unreachable ${all} metric ${LAST_METRIC}`),
  ]
}

/** On the fabric: a node's pods are behind it. */
function routesToPods({ index }: NodePlan): string[] {
  return podCidrs(index).map((cidr, at) => `route add ${cidr} via ${nodeIps(index)[at]} dev eth0`)
}

/** On a node: the link to a pod. The source address of its route is what the pod sees a kubelet come from. */
export function podLinkBatch(pod: PodPlan): string[] {
  const [v4, v6] = nodeIps(pod.nodeIndex)
  return [
    `link add ${pod.link} type veth peer name eth0 netns ${pod.netns}`,
    `link set ${pod.link} addrgenmode none`,
    `addr add ${POD_GATEWAY.v4}/32 dev ${pod.link} scope link`,
    `addr add ${POD_GATEWAY.v6}/64 dev ${pod.link} nodad`,
    `link set ${pod.link} up`,
    ...pod.ips.map(ip => `route add ${host(ip)} dev ${pod.link} src ${ip.includes(':') ? v6 : v4}`),
  ]
}

/** In a pod: its addresses and the way out. */
export function podBatch(pod: PodPlan): string[] {
  return [
    'link set lo up',
    ...pod.ips.map(ip => `addr add ${host(ip)} dev eth0${ip.includes(':') ? ' nodad' : ''}`),
    'link set eth0 up',
    ...pod.ips.map(ip =>
      ip.includes(':')
        ? `route add default via ${POD_GATEWAY.v6} dev eth0`
        : `route add default via ${POD_GATEWAY.v4} dev eth0 onlink`,
    ),
  ]
}

/** The name of the node's end of a pod's link: at most 15 characters, unique by the pod's uid. */
export function podLinkName(uid: string): string {
  return `pod${uid.replaceAll('-', '').slice(0, 12)}`
}

function fabricAddresses([v4, v6]: readonly [string, string]): string[] {
  return [`addr add ${v4}/${FABRIC_PREFIX.v4} dev eth0`, `addr add ${v6}/${FABRIC_PREFIX.v6} dev eth0 nodad`]
}

function host(ip: string): string {
  return `${ip}/${ip.includes(':') ? 128 : 32}`
}
