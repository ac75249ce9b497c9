/** What of the cluster itself is in the way of an installation: looked at through the API, nothing is changed. */
import { ANNOTATION, parseEnrolment } from '../../lib/enrolment.ts'
import type { Finding } from '../../lib/finding.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import type { KubeObject, Node } from '../kubernetes/objects.ts'
import type { NetworkPolicy } from '../kubernetes/network-policy.ts'
import { policyFindings } from './check-policies.ts'
import { wantedIn, type Survey } from './survey.ts'

/** appArmorProfile is a field since then. */
const OLDEST_MINOR = 30
const MOST_NAMED = 5

/** Other meshes by the namespaces that they are installed into. */
const OTHERS: Readonly<Record<string, string>> = {
  'istio-system': 'Istio',
  linkerd: 'Linkerd',
  'kuma-system': 'Kuma',
  consul: 'Consul',
}

export async function checkCluster(api: KubeApi, survey: Survey): Promise<Finding[]> {
  const [version, policies, cilium, mayInstall] = await Promise.all([
    api.get<{ major: string; minor: string; gitVersion: string }>('/version'),
    api.list<NetworkPolicy>('/apis/networking.k8s.io/v1/networkpolicies'),
    api.get<KubeObject & { data?: Record<string, string> }>(
      '/api/v1/namespaces/kube-system/configmaps/cilium-config',
    ),
    mayBind(api),
  ])
  return [
    versionFinding(version),
    mayInstall
      ? { id: 'rights', state: 'ok', text: 'you may install: cluster roles can be bound' }
      : {
          id: 'rights',
          state: 'warn',
          text: 'you may not make cluster role bindings',
          hint: 'installing takes cluster-admin',
        },
    nodesFinding(survey.nodes),
    ...otherMeshes(survey),
    ...ciliumFindings(cilium?.data),
    ...policyFindings(policies, survey),
    ...annotationFindings(survey),
    ...hostNetworkFindings(survey),
  ]
}

async function mayBind(api: KubeApi): Promise<boolean> {
  const review = await api.create({
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    metadata: { name: '' },
    spec: {
      resourceAttributes: {
        group: 'rbac.authorization.k8s.io',
        resource: 'clusterrolebindings',
        verb: 'create',
      },
    },
  })
  return (review['status'] as { allowed?: boolean } | undefined)?.allowed === true
}

function versionFinding(version: { major: string; minor: string; gitVersion: string } | undefined): Finding {
  const minor = Number.parseInt(version?.minor ?? '', 10)
  const text = `Kubernetes ${version?.gitVersion ?? 'of an unknown version'}`
  return version?.major === '1' && minor >= OLDEST_MINOR
    ? { id: 'version', state: 'ok', text }
    : { id: 'version', state: 'fail', text, hint: `1.${OLDEST_MINOR} or newer is needed` }
}

function nodesFinding(nodes: readonly Node[]): Finding {
  const isOurs = ({ status: { nodeInfo } }: Node) =>
    nodeInfo.operatingSystem === 'linux' && ['amd64', 'arm64'].includes(nodeInfo.architecture)
  const others = nodes.filter(node => !isOurs(node))
  const kinds = new Set(
    nodes.map(
      ({ status: { nodeInfo } }) => `${nodeInfo.containerRuntimeVersion}, Linux ${nodeInfo.kernelVersion}`,
    ),
  )
  return others.length === 0
    ? {
        id: 'nodes',
        state: 'ok',
        text: `${nodes.length} nodes: ${[...kinds].slice(0, MOST_NAMED).join('; ')}`,
      }
    : {
        id: 'nodes',
        state: 'warn',
        text: `no agent can run on ${named(others.map(({ metadata }) => metadata.name))}`,
        hint: 'pods there stay out of the mesh: agents are for Linux on amd64 and arm64',
      }
}

/** Which labels and annotations make other meshes take a pod. */
function isTakenByOther({ labels = {}, annotations = {} }: KubeObject['metadata']): string | undefined {
  if (labels['istio-injection'] === 'enabled' || labels['istio.io/rev'] !== undefined)
    return 'Istio (sidecars)'
  if (labels['istio.io/dataplane-mode'] === 'ambient') return 'Istio (ambient)'
  return annotations['linkerd.io/inject'] === 'enabled' ? 'Linkerd' : undefined
}

function otherMeshes({ namespaces }: Survey): Finding[] {
  const installed = namespaces.flatMap(({ metadata }) => OTHERS[metadata.name] ?? [])
  const twice = namespaces.flatMap(({ metadata }) => {
    const other = isTakenByOther(metadata)
    return other !== undefined && parseEnrolment(metadata.annotations).mesh
      ? [`${metadata.name} (${other})`]
      : []
  })
  return [
    ...installed.map((name): Finding => ({
      id: `mesh/${name.toLowerCase()}`,
      state: 'warn',
      text: `${name} is installed`,
      hint: 'its pods are left alone; move a namespace by taking it out of the one before putting it into the other',
    })),
    ...(twice.length > 0
      ? [
          {
            id: 'mesh/twice',
            state: 'fail',
            text: `enrolled in two meshes: ${named(twice)}`,
            hint: `kubectl annotate namespace NAME ${ANNOTATION.mesh}-, or take the other mesh's label away`,
          } as const,
        ]
      : []),
  ]
}

/** With its socket load balancer Cilium decides for an endpoint before anything of ours sees the connection. */
function ciliumFindings(data: Readonly<Record<string, string>> | undefined): Finding[] {
  if (!data) return []
  const replaces = ['true', 'strict'].includes(data['kube-proxy-replacement'] ?? '')
  const inPods = data['bpf-lb-sock-hostns-only'] !== 'true'
  return [
    replaces && inPods
      ? {
          id: 'cilium/socket-lb',
          state: 'warn',
          text: "Cilium's socket load balancer works inside pods: a Service is its endpoint before Culvert sees the connection",
          hint: 'it is still mTLS, but services are missing in reports; helm upgrade cilium --set socketLB.hostNamespaceOnly=true',
        }
      : {
          id: 'cilium/socket-lb',
          state: 'ok',
          text: "Cilium leaves pods' own connections to Services alone",
        },
  ]
}

function annotationFindings({ namespaces, pods }: Survey): Finding[] {
  const wrong = [
    ...namespaces.map(({ metadata }) => ({ name: `namespace ${metadata.name}`, metadata })),
    ...pods.map(({ pod, namespace, name }) => ({ name: `pod ${namespace}/${name}`, metadata: pod.metadata })),
  ].flatMap(({ name, metadata }) =>
    parseEnrolment(metadata.annotations).problems.map(problem => `${name}: ${problem}`),
  )
  return wrong.slice(0, MOST_NAMED).map(text => ({
    id: 'annotation',
    state: 'warn',
    text,
    hint: 'what is not understood is ignored',
  }))
}

function hostNetworkFindings(survey: Survey): Finding[] {
  const enrolled = new Set(wantedIn(survey).map(({ namespace }) => namespace))
  const found = survey.pods
    .filter(({ pod, namespace }) => pod.spec.hostNetwork && enrolled.has(namespace))
    .map(({ namespace, name }) => `${namespace}/${name}`)
  return found.length === 0
    ? []
    : [
        {
          id: 'host-network',
          state: 'warn',
          text: `in enrolled namespaces, but with their node's network: ${named(found)}`,
          hint: 'they are not enrolled, and what they send and get is plaintext',
        },
      ]
}

function named(names: readonly string[]): string {
  const more = names.length - MOST_NAMED
  return names.slice(0, MOST_NAMED).join(', ') + (more > 0 ? ` and ${more} more` : '')
}
