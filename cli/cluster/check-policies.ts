/**
 * NetworkPolicies that let an application's port through but not the tunnel's: what was a connection to 8080 arrives as
 * one to 15008, and a policy that names 8080 alone drops it. And those between agents and ca-server.
 */
import type { Finding } from '../../lib/finding.ts'
import {
  blockedBy,
  isAllowed,
  namedPorts,
  type NetworkPolicy,
  type PolicyPod,
} from '../kubernetes/network-policy.ts'
import { AGENT, CA_SERVER, SYSTEM_NAMESPACE } from './session.ts'
import { wantedIn, type Survey } from './survey.ts'

const TUNNEL = 15008
const SERVICE = 15012
/** Kinds of pods that are compared with each other: beyond this it takes too long to be a check. */
const MOST_KINDS = 150
const MOST_FINDINGS = 20
/** Different for each copy of a pod, and of no meaning to policies. */
const OF_COPIES = [
  'pod-template-hash',
  'controller-revision-hash',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
]

interface Kind extends PolicyPod {
  /** One of them. */
  readonly name: string
}

export function policyFindings(policies: readonly NetworkPolicy[], survey: Survey): Finding[] {
  const kinds = kindsOf(survey)
  const blocked = new Map<string, Finding>()
  for (const from of kinds.slice(0, MOST_KINDS))
    for (const to of kinds.slice(0, MOST_KINDS)) {
      const by = tunnelBlockedBy(policies, from, to)
      const names = by.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`).join(', ')
      if (names === '' || blocked.has(names)) continue
      blocked.set(names, {
        id: 'policy/15008',
        state: 'fail',
        text: `NetworkPolicy ${names} lets ${from.name} talk to ${to.name}, but not through the tunnel`,
        hint: `allow TCP port ${TUNNEL} beside the ports that it names`,
      })
    }
  const found = [...blocked.values()].slice(0, MOST_FINDINGS)
  if (found.length === 0)
    found.push({
      id: 'policy/15008',
      state: 'ok',
      text: `no NetworkPolicy blocks the tunnel between enrolled pods (${policies.length} looked at)`,
    })
  return [...found, serviceFinding(policies, survey)]
}

/** What blocks the tunnel where some application port passes. */
function tunnelBlockedBy(
  policies: readonly NetworkPolicy[],
  from: PolicyPod,
  to: PolicyPod,
): NetworkPolicy[] {
  const by = blockedBy(policies, from, to, TUNNEL)
  if (by.length === 0) return []
  return [...namedPorts(policies)].some(port => port !== TUNNEL && isAllowed(policies, from, to, port))
    ? by
    : []
}

/** Before an installation there are no such pods yet: policies are asked about those that will be. */
function serviceFinding(policies: readonly NetworkPolicy[], { namespaces }: Survey): Finding {
  const namespaceLabels = {
    'kubernetes.io/metadata.name': SYSTEM_NAMESPACE,
    ...namespaces.find(({ metadata }) => metadata.name === SYSTEM_NAMESPACE)?.metadata.labels,
  }
  const pod = (name: string): PolicyPod => ({
    namespace: SYSTEM_NAMESPACE,
    namespaceLabels,
    labels: { 'app.kubernetes.io/name': name, 'app.kubernetes.io/part-of': 'culvert' },
  })
  const by = blockedBy(policies, pod(AGENT), pod(CA_SERVER), SERVICE)
  return by.length === 0
    ? { id: 'policy/15012', state: 'ok', text: 'agents may reach the ca-server' }
    : {
        id: 'policy/15012',
        state: 'fail',
        text: `NetworkPolicy ${by.map(({ metadata }) => metadata.name).join(', ')} in ${SYSTEM_NAMESPACE} keeps agents from the ca-server`,
        hint: `allow TCP port ${SERVICE} from ${AGENT} to ${CA_SERVER} there`,
      }
}

/** Enrolled pods, one for each set of labels. */
function kindsOf(survey: Survey): Kind[] {
  const labelsOf = new Map(survey.namespaces.map(({ metadata }) => [metadata.name, metadata.labels ?? {}]))
  const kinds = new Map<string, Kind>()
  for (const { pod, namespace, name } of wantedIn(survey)) {
    const labels = Object.fromEntries(
      Object.entries(pod.metadata.labels ?? {}).filter(([key]) => !OF_COPIES.includes(key)),
    )
    const key = JSON.stringify([namespace, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))])
    if (kinds.has(key)) continue
    kinds.set(key, {
      name: `${namespace}/${name}`,
      namespace,
      namespaceLabels: labelsOf.get(namespace) ?? {},
      labels,
      ip: pod.status.podIP,
    })
  }
  return [...kinds.values()]
}
