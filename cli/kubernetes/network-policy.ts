/**
 * What NetworkPolicies let through between pods, as the API defines it (networking.k8s.io/v1): a pod that no policy of a
 * direction selects is open in it; one that any selects may do what any of them allows. Named ports are taken to match
 * nothing here, and address blocks are asked only about the pods' own addresses.
 */
import { Cidr } from '../../lib/address.ts'
import type { KubeObject } from './objects.ts'

type Labels = Readonly<Record<string, string>>

export interface LabelSelector {
  readonly matchLabels?: Labels
  readonly matchExpressions?: readonly {
    readonly key: string
    readonly operator: string
    readonly values?: readonly string[]
  }[]
}

interface PolicyPeer {
  readonly podSelector?: LabelSelector
  readonly namespaceSelector?: LabelSelector
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] }
}

interface PolicyPort {
  readonly protocol?: string
  readonly port?: number | string
  readonly endPort?: number
}

interface PolicyRule {
  readonly from?: readonly PolicyPeer[]
  readonly to?: readonly PolicyPeer[]
  readonly ports?: readonly PolicyPort[]
}

export interface NetworkPolicy extends KubeObject {
  readonly spec: {
    readonly podSelector?: LabelSelector
    readonly policyTypes?: readonly string[]
    readonly ingress?: readonly PolicyRule[]
    readonly egress?: readonly PolicyRule[]
  }
}

export interface PolicyPod {
  readonly namespace: string
  readonly namespaceLabels: Labels
  readonly labels: Labels
  readonly ip?: string | undefined
}

type Direction = 'ingress' | 'egress'

/** Reports whether a TCP connection to the port passes both the sender's and the receiver's policies. */
export function isAllowed(
  policies: readonly NetworkPolicy[],
  from: PolicyPod,
  to: PolicyPod,
  port: number,
): boolean {
  return blockedBy(policies, from, to, port).length === 0
}

/** The policies of the direction that blocks: those that select the pod, none of which allows. Empty when it passes. */
export function blockedBy(
  policies: readonly NetworkPolicy[],
  from: PolicyPod,
  to: PolicyPod,
  port: number,
): NetworkPolicy[] {
  const out = policies.filter(policy => selects(policy, from, 'egress'))
  if (out.length > 0 && !out.some(policy => allows(policy, 'egress', to, port))) return out
  const into = policies.filter(policy => selects(policy, to, 'ingress'))
  return into.length > 0 && !into.some(policy => allows(policy, 'ingress', from, port)) ? into : []
}

/** TCP ports that the policies name as numbers. */
export function namedPorts(policies: readonly NetworkPolicy[]): Set<number> {
  const ports = policies.flatMap(({ spec }) => [...(spec.ingress ?? []), ...(spec.egress ?? [])])
  return new Set(
    ports
      .flatMap(rule => rule.ports ?? [])
      .filter(({ protocol = 'TCP', port }) => protocol === 'TCP' && typeof port === 'number')
      .map(({ port }) => Number(port)),
  )
}

function selects({ metadata, spec }: NetworkPolicy, pod: PolicyPod, direction: Direction): boolean {
  if (metadata.namespace !== pod.namespace) return false
  // Without types: ingress always, egress when there are rules for it.
  const types = spec.policyTypes ?? ['Ingress', ...(spec.egress ? ['Egress'] : [])]
  if (!types.some(type => type.toLowerCase() === direction)) return false
  return matches(spec.podSelector ?? {}, pod.labels)
}

function allows(
  { metadata, spec }: NetworkPolicy,
  direction: Direction,
  peer: PolicyPod,
  port: number,
): boolean {
  return (spec[direction] ?? []).some(rule => {
    const peers = direction === 'ingress' ? rule.from : rule.to
    const isPeer = !peers?.length || peers.some(one => isPeerOf(one, peer, metadata.namespace ?? ''))
    return isPeer && (!rule.ports?.length || rule.ports.some(one => isPort(one, port)))
  })
}

function isPeerOf(peer: PolicyPeer, pod: PolicyPod, ownNamespace: string): boolean {
  if (peer.ipBlock) return pod.ip !== undefined && isInBlock(peer.ipBlock, pod.ip)
  const isNamespace = peer.namespaceSelector
    ? matches(peer.namespaceSelector, pod.namespaceLabels)
    : pod.namespace === ownNamespace
  return isNamespace && (!peer.podSelector || matches(peer.podSelector, pod.labels))
}

function isInBlock({ cidr, except = [] }: NonNullable<PolicyPeer['ipBlock']>, ip: string): boolean {
  return Cidr.parse(cidr).contains(ip) && !except.some(one => Cidr.parse(one).contains(ip))
}

function isPort({ protocol = 'TCP', port, endPort }: PolicyPort, wanted: number): boolean {
  if (protocol !== 'TCP') return false
  if (port === undefined) return true
  if (typeof port === 'string') return false
  return endPort === undefined ? port === wanted : port <= wanted && wanted <= endPort
}

/** An empty selector matches everything. */
export function matches({ matchLabels = {}, matchExpressions = [] }: LabelSelector, labels: Labels): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key]
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value)
        case 'NotIn':
          return value === undefined || !values.includes(value)
        case 'Exists':
          return value !== undefined
        case 'DoesNotExist':
          return value === undefined
        default:
          return false
      }
    })
  )
}
