/**
 * Whether an inbound connection may come in, and under which word. A tunnelled one has a verified identity and
 * is up to the policies alone. A plaintext one passes, in this order, as a probe of the pod's own kubelet, by an
 * excluded port, or, where the pod is not strict, past the policies; its reason then says who was not enrolled.
 *
 * A probe goes to a port that the pod declares for one, comes from nobody who is known to be another, and from a socket
 * that the kubelet has open. A node port whose client the node stands in for comes from the node's address, too.
 */
import { Cidr, isLoopback, type SocketAddress } from '../../lib/address.ts'
import type { PlaintextReason } from '../../lib/reasons.ts'
import { parseSpiffe } from '../../lib/spiffe.ts'
import { AGENT_PORTS } from '../ports.ts'
import type { AdmitDecision, AdmitQuestion, PeerInfo } from '../worker/messages.ts'
import type { RoutedPod } from './local-pod.ts'
import type { Mesh } from './mesh.ts'
import type { Verdict } from './policies.ts'
import { peerOf, type Workload } from './records.ts'

export interface AdmissionContext {
  readonly mesh: Mesh
  readonly nodeName: string
  /** Further addresses of this node, as it sees them itself. */
  readonly ownAddresses: ReadonlySet<string>
  /** Undefined: whoever calls a probe's port from this node is taken for its kubelet. */
  readonly isKubelet: KubeletProof | undefined
}

/**
 * Reports whether it is the kubelet that called: the source is its end of the connection, the destination the pod's.
 * `'closed'` when somebody of this node did who has closed the connection since; undefined when it cannot be told here.
 */
export type KubeletProof = (
  source: SocketAddress,
  destination: SocketAddress,
) => boolean | 'closed' | undefined

export interface AdmissionAnswer {
  readonly decision: AdmitDecision
  /** The answer may be other once discovery has told of the pod itself: worth waiting a little for. */
  readonly isUncertain: boolean
  /** What the policies said, if they were asked. */
  readonly verdict?: Verdict
}

/** Decides. */
export function decideAdmission(
  context: AdmissionContext,
  to: RoutedPod,
  question: AdmitQuestion,
): AdmissionAnswer {
  const { mesh } = context
  const { pod } = to
  const { identity, ip, port, sourceIp } = question
  const source = mesh.workloads.byIp(sourceIp)
  const peer = identity === undefined ? plainPeer(context, source, sourceIp) : verifiedPeer(source, identity)
  const refuse = (reason: 'policy' | 'strict', detail: string): AdmitDecision => ({
    kind: 'refuse',
    reason,
    detail,
    peer,
  })

  if (AGENT_PORTS.has(port)) return certain(refuse('policy', `self call: port ${port} is the agent's own`))
  if (identity !== undefined && (isLoopback(ip) || (pod.ips.length > 0 && !pod.ips.includes(ip))))
    return certain(refuse('policy', `${ip} is not an address of pod ${pod.namespace}/${pod.name}`))

  const self = mesh.workloadOf(pod)
  if (
    identity === undefined &&
    !isSomebodyElse(context, question.sourceIp) &&
    self?.details?.probePorts.includes(port)
  ) {
    const answer = asProbe(context, to, question)
    if (answer) return certain(answer)
  }
  if (identity === undefined) {
    if (to.excludedInbound.has(port)) return certain({ kind: 'admit', reason: 'excluded-port', peer })
    if (to.enrolment.strictInbound) {
      const detail = `plaintext from ${describe(source, sourceIp)}, and pod ${pod.namespace}/${pod.name} is strict`
      // A probe is only known for one once the pod's workload is.
      return { decision: refuse('strict', detail), isUncertain: self === undefined }
    }
  }

  if (!mesh.hasPolicies)
    return { decision: refuse('policy', 'the policies have not been received yet'), isUncertain: true }
  const verdict = mesh.policies.evaluate(
    { namespace: pod.namespace, named: self?.policies ?? [] },
    { identity, sourceIp, destinationIp: ip, destinationPort: port },
  )
  // Until discovery has told of the pod, nobody knows which policies select it.
  const isUncertain = self === undefined
  if (!verdict.isAllowed) return { decision: refuse('policy', verdict.detail), isUncertain, verdict }
  const reason = identity === undefined ? plainReason(context, source, question) : 'mtls'
  return { decision: { kind: 'admit', reason, peer }, isUncertain, verdict }
}

/**
 * What holds if it is a probe; undefined when it is none. The kubelet calls from a port of its own each time, so whose a
 * connection is can only be asked of each: where strict would refuse it, whatever address it comes from, and else where
 * the address is the node's, for the word that it is counted under.
 */
function asProbe(
  context: AdmissionContext,
  to: RoutedPod,
  question: AdmitQuestion,
): AdmitDecision | undefined {
  const { isKubelet, nodeName } = context
  const { sourceIp, sourcePort, ip, port } = question
  const isNodes = isOwnNode(context, sourceIp)
  const probe = { kind: 'admit', reason: 'kubelet-probe', peer: { node: nodeName } } as const
  if (!isKubelet) return isNodes ? probe : undefined
  if (!isNodes && !to.enrolment.strictInbound) return undefined
  if (sourcePort === undefined) return { ...probe, isForEach: true }
  const isIt = isKubelet({ ip: sourceIp, port: sourcePort }, { ip, port }) ?? isNodes
  if (isIt !== 'closed') return isIt ? probe : undefined
  // A TCP probe is over when it has begun. Who else it may have been matters only if there is something to let in.
  const { decision } = decideAdmission({ ...context, isKubelet: () => false }, to, question)
  return { ...probe, otherwise: decision }
}

function plainReason(
  context: AdmissionContext,
  source: Workload | undefined,
  { sourceIp, ip, port }: AdmitQuestion,
): PlaintextReason {
  const { mesh } = context
  if (source) {
    // An enrolled pod sends plaintext where it was told to, or when its rules do not stand.
    const wishes = source.tunnelled ? source.details?.enrolment : undefined
    if (wishes?.excludeOutboundPorts.includes(port)) return 'excluded-port'
    if (wishes?.excludeOutboundCidrs.some(cidr => Cidr.parse(cidr).contains(ip))) return 'excluded-cidr'
    return 'peer-not-enrolled'
  }
  if (isOnAnyNode(context, sourceIp)) return 'peer-host-network'
  return mesh.nodes.isInCluster(sourceIp) || !mesh.knows(sourceIp) ? 'peer-unknown' : 'peer-external'
}

function isOwnNode({ mesh, nodeName, ownAddresses }: AdmissionContext, ip: string): boolean {
  return ownAddresses.has(ip) || mesh.nodes.addressesOf(nodeName).includes(ip)
}

/** A pod, or another node. */
function isSomebodyElse({ mesh, nodeName }: AdmissionContext, ip: string): boolean {
  return mesh.workloads.byIp(ip)?.isPod === true || (mesh.nodes.at(ip)?.name ?? nodeName) !== nodeName
}

function isOnAnyNode(context: AdmissionContext, ip: string): boolean {
  const { mesh } = context
  return (
    isOwnNode(context, ip) ||
    mesh.nodes.at(ip) !== undefined ||
    mesh.workloads.hostNetworkAt(ip) !== undefined
  )
}

function plainPeer(context: AdmissionContext, source: Workload | undefined, ip: string): PeerInfo {
  if (source) return peerOf(source)
  if (isOwnNode(context, ip)) return { node: context.nodeName }
  const node = context.mesh.nodes.at(ip)?.name ?? context.mesh.workloads.hostNetworkAt(ip)?.node
  return node ? { node } : {}
}

/** The source's workload, if the identity that was verified is its own; else only what the identity says. */
function verifiedPeer(source: Workload | undefined, identity: string): PeerInfo {
  const id = parseSpiffe(identity)
  if (source && id?.namespace === source.namespace && id.serviceAccount === source.serviceAccount)
    return { ...peerOf(source), identity }
  return { identity, namespace: id?.namespace }
}

function describe(source: Workload | undefined, ip: string): string {
  return source ? `pod ${source.namespace}/${source.name}` : ip
}

function certain(decision: AdmitDecision): AdmissionAnswer {
  return { decision, isUncertain: false }
}
