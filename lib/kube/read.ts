/**
 * From Kubernetes objects as the API has them to the stripped types of `objects.ts`. What a field means when
 * it is absent is what the API server's defaulting says; fields that Culvert does not use are not looked at.
 */
import { Cidr } from '../address.ts'
import { ANNOTATION } from '../enrolment.ts'
import { Fields, strip } from './fields.ts'
import type {
  KubeContainer,
  KubeEndpointSlice,
  KubeKind,
  KubeNode,
  KubeObject,
  KubePod,
  KubeService,
  ObjectMeta,
  ProbePort,
} from './objects.ts'

/** The API group and version of every kind that is understood. */
export const API_VERSIONS: Readonly<Record<KubeKind, string>> = {
  Node: 'v1',
  Namespace: 'v1',
  ServiceAccount: 'v1',
  Pod: 'v1',
  Service: 'v1',
  EndpointSlice: 'discovery.k8s.io/v1',
}

/** EndpointSlices name their Service by this label. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name'

// RFC 1123 as the API server checks it: labels for namespaces and services, subdomains for the others.
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/

/** Containers that carry their pod's traffic for another mesh: Istio's and Linkerd's. */
export const MESH_PROXIES: readonly string[] = ['istio-proxy', 'linkerd-proxy']

const PROBES = ['readinessProbe', 'livenessProbe', 'startupProbe']
const HOOKS = ['postStart', 'preStop']
const PHASES = ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'] as const

export function isKubeKind(text: string): text is KubeKind {
  return Object.hasOwn(API_VERSIONS, text)
}

const READERS: Readonly<Record<KubeKind, (fields: Fields) => KubeObject>> = {
  Node: readNode,
  Namespace: fields => ({ kind: 'Namespace', metadata: readMeta(fields, 'cluster', LABEL) }),
  ServiceAccount: fields => ({ kind: 'ServiceAccount', metadata: readMeta(fields, 'namespace', SUBDOMAIN) }),
  Pod: readPod,
  Service: readService,
  EndpointSlice: readEndpointSlice,
}

/** Reads one object of a known kind; problems are added to the fields' own list. */
export function readObject(kind: KubeKind, fields: Fields): KubeObject {
  return READERS[kind](fields)
}

function readMeta(object: Fields, scope: 'cluster' | 'namespace', shape: RegExp): ObjectMeta {
  const fields = object.child('metadata')
  const namespace = fields.text('namespace')
  if (scope === 'cluster' && namespace !== undefined)
    fields.problem('namespace', 'is not allowed: this kind belongs to the whole cluster')
  if (namespace !== undefined && !LABEL.test(namespace))
    fields.problem('namespace', `is '${namespace}', not a legal name`)
  const name = fields.requiredText('name')
  if (name !== '' && !shape.test(name)) fields.problem('name', `is '${name}', not a legal name`)
  return strip<ObjectMeta>({
    name,
    namespace: scope === 'namespace' ? (namespace ?? 'default') : undefined,
    uid: fields.text('uid') ?? '',
    resourceVersion: fields.text('resourceVersion'),
    labels: fields.textMap('labels'),
    annotations: fields.textMap('annotations'),
    deletionTimestamp: fields.text('deletionTimestamp'),
    deletionGracePeriodSeconds: fields.integer('deletionGracePeriodSeconds', 0, Number.MAX_SAFE_INTEGER),
    ownerReferences: fields.has('ownerReferences')
      ? fields.items('ownerReferences').map(owner =>
          strip<NonNullable<ObjectMeta['ownerReferences']>[number]>({
            kind: owner.requiredText('kind'),
            name: owner.requiredText('name'),
            controller: owner.boolean('controller'),
          }),
        )
      : undefined,
  })
}

function readNode(fields: Fields): KubeNode {
  const metadata = readMeta(fields, 'cluster', SUBDOMAIN)
  const spec = fields.child('spec')
  const single = spec.text('podCIDR')
  const podCIDRs = spec.has('podCIDRs') ? spec.textList('podCIDRs') : single === undefined ? [] : [single]
  return {
    kind: 'Node',
    metadata,
    spec: { podCIDRs: podCIDRs.map((cidr, at) => readCidr(spec, `podCIDRs[${at}]`, cidr)) },
    status: {
      addresses: fields
        .child('status')
        .items('addresses')
        .map(address => ({ type: address.requiredText('type'), address: address.requiredText('address') })),
    },
  }
}

function readCidr(fields: Fields, key: string, text: string): string {
  try {
    return Cidr.parse(text).text
  } catch {
    fields.problems.push(`${fields.path}.${key} is '${text}', not a CIDR`)
    return text
  }
}

function readPod(fields: Fields): KubePod {
  const { metadata, mesh } = takeStatus(readMeta(fields, 'namespace', SUBDOMAIN))
  const spec = fields.child('spec')
  const status = fields.child('status')
  const containers = spec.items('containers')
  const all = [...containers, ...spec.items('initContainers')]
  if (containers.length === 0) spec.problem('containers', 'is required')
  const nodeName = spec.text('nodeName')
  if (nodeName !== undefined && !SUBDOMAIN.test(nodeName))
    spec.problem('nodeName', `is '${nodeName}', not a legal name`)
  return {
    kind: 'Pod',
    metadata,
    spec: strip<KubePod['spec']>({
      nodeName,
      serviceAccountName: spec.text('serviceAccountName') ?? spec.text('serviceAccount') ?? 'default',
      hostNetwork: spec.boolean('hostNetwork') ?? false,
      terminationGracePeriodSeconds: spec.integer('terminationGracePeriodSeconds', 0, 1e9),
      containers: containers.map(readContainer),
      probePorts: readProbePorts(all),
      meshProxy: all.map(container => container.text('name') ?? '').find(name => MESH_PROXIES.includes(name)),
    }),
    status: strip<KubePod['status']>({
      phase: status.choice('phase', PHASES) ?? 'Pending',
      podIPs: readPodIps(status),
      hostIP: status.has('hostIP') ? status.ip('hostIP') : undefined,
      ready: status
        .items('conditions')
        .some(condition => condition.text('type') === 'Ready' && condition.text('status') === 'True'),
      mesh,
    }),
  }
}

/** The metadata without the annotation that tells the pod's state in the mesh, and what stands in that. */
function takeStatus(metadata: ObjectMeta): { metadata: ObjectMeta; mesh: string | undefined } {
  const { annotations, ...rest } = metadata
  if (annotations?.[ANNOTATION.status] === undefined) return { metadata, mesh: undefined }
  const { [ANNOTATION.status]: mesh, ...others } = annotations
  return { metadata: Object.keys(others).length > 0 ? { ...rest, annotations: others } : rest, mesh }
}

function readPodIps(status: Fields): string[] {
  if (status.has('podIPs')) return status.items('podIPs').map(entry => entry.ip('ip'))
  return status.has('podIP') ? [status.ip('podIP')] : []
}

function readContainer(fields: Fields): KubeContainer {
  const env = fields.items('env')
  const ports = fields.items('ports')
  return strip<KubeContainer>({
    name: fields.requiredText('name'),
    image: fields.text('image'),
    command: fields.has('command') ? fields.textList('command') : undefined,
    args: fields.has('args') ? fields.textList('args') : undefined,
    env: fields.has('env')
      ? env.map(entry =>
          strip<NonNullable<KubeContainer['env']>[number]>({
            name: entry.requiredText('name'),
            value: entry.text('value'),
          }),
        )
      : undefined,
    ports: fields.has('ports')
      ? ports.map(port =>
          strip<NonNullable<KubeContainer['ports']>[number]>({
            name: port.text('name'),
            containerPort: port.requiredPort('containerPort'),
            protocol: port.text('protocol'),
            hostPort: port.integer('hostPort', 0, 65535) || undefined,
            hostIP: port.text('hostIP') ? port.ip('hostIP') : undefined,
          }),
        )
      : undefined,
  })
}

/**
 * The ports that the kubelet knocks on, in the order of the containers, each once. Probes of init containers
 * count too (sidecars have them), and so do the HTTP hooks of a container's life, which the kubelet calls the same
 * way; `exec` probes do not touch the network, and a probe with a `host` of its own goes elsewhere.
 */
function readProbePorts(containers: readonly Fields[]): ProbePort[] {
  const found = new Map<string, ProbePort>()
  for (const container of containers) {
    const hooks = HOOKS.map(name => container.child('lifecycle').child(name))
    for (const probe of [...PROBES.map(name => container.child(name)), ...hooks]) {
      for (const [action, kind] of [
        ['httpGet', 'http'],
        ['tcpSocket', 'tcp'],
        ['grpc', 'grpc'],
      ] as const) {
        if (!probe.has(action) || probe.child(action).text('host')) continue
        const port = readProbePort(container, probe.child(action))
        if (port > 0) found.set(`${kind} ${port}`, { port, kind })
      }
    }
  }
  return [...found.values()]
}

function readProbePort(container: Fields, action: Fields): number {
  const value = action.get('port')
  if (typeof value !== 'string') return action.requiredPort('port')
  const named = container.items('ports').find(port => port.get('name') === value)
  if (named) return named.requiredPort('containerPort')
  if (/^\d{1,5}$/.test(value)) return Number(value)
  action.problem('port', `is '${value}', and the container has no port of that name`)
  return 0
}

function readService(fields: Fields): KubeService {
  const metadata = readMeta(fields, 'namespace', LABEL)
  const spec = fields.child('spec')
  const single = spec.text('clusterIP')
  const clusterIPs = spec.has('clusterIPs') ? spec.textList('clusterIPs') : single ? [single] : []
  return {
    kind: 'Service',
    metadata,
    spec: strip<KubeService['spec']>({
      type: spec.choice('type', ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']) ?? 'ClusterIP',
      // A headless Service says "None"; one whose addresses are not given yet says nothing.
      clusterIPs: clusterIPs.map(ip => (ip === 'None' ? ip : (spec.canonical('clusterIPs', ip) ?? ''))),
      selector: spec.textMap('selector'),
      ports: spec.items('ports').map(readServicePort),
      publishNotReadyAddresses: spec.boolean('publishNotReadyAddresses') ?? false,
      sessionAffinity: spec.text('sessionAffinity'),
      externalIPs: spec.has('externalIPs') ? readIps(spec, 'externalIPs') : undefined,
      loadBalancerSourceRanges: spec.has('loadBalancerSourceRanges')
        ? spec.textList('loadBalancerSourceRanges')
        : undefined,
      internalTrafficPolicy: spec.text('internalTrafficPolicy'),
      trafficDistribution: spec.text('trafficDistribution'),
      ipFamilies: spec.has('ipFamilies') ? spec.textList('ipFamilies') : undefined,
      externalName: spec.text('externalName'),
    }),
    ...readServiceStatus(fields.child('status')),
  }
}

/** A load balancer that ends connections (`ipMode: Proxy`) must not be gone around; one may have a name only. */
function readServiceStatus(status: Fields): Pick<KubeService, 'status'> {
  if (!status.has('loadBalancer')) return {}
  const ingress = status.child('loadBalancer').items('ingress')
  const passing = ingress.filter(entry => entry.text('ip') && entry.text('ipMode') !== 'Proxy')
  return { status: { loadBalancerIPs: passing.map(entry => entry.ip('ip')) } }
}

function readIps(fields: Fields, key: string): string[] {
  return fields.textList(key).map(ip => fields.canonical(key, ip) ?? '')
}

function readServicePort(fields: Fields): KubeService['spec']['ports'][number] {
  const port = fields.requiredPort('port')
  const target = fields.get('targetPort')
  return strip<KubeService['spec']['ports'][number]>({
    name: fields.text('name'),
    port,
    targetPort:
      target === undefined || target === 0
        ? port
        : typeof target === 'string' && target !== ''
          ? target
          : fields.requiredPort('targetPort'),
    protocol: fields.text('protocol') ?? 'TCP',
    appProtocol: fields.text('appProtocol'),
    nodePort: fields.integer('nodePort', 0, 65535) || undefined,
  })
}

function readEndpointSlice(fields: Fields): KubeEndpointSlice {
  const metadata = readMeta(fields, 'namespace', SUBDOMAIN)
  if (!fields.has('addressType')) fields.problem('addressType', 'is required')
  const addressType = fields.choice('addressType', ['IPv4', 'IPv6', 'FQDN']) ?? 'IPv4'
  return {
    kind: 'EndpointSlice',
    metadata,
    addressType,
    serviceName: metadata.labels?.[SERVICE_NAME_LABEL] ?? '',
    endpoints: fields.items('endpoints').map(endpoint => readEndpoint(endpoint, addressType)),
    // A port without a number stands for every port: nothing that can be routed by.
    ports: fields
      .items('ports')
      .filter(port => port.has('port'))
      .map(port =>
        strip<KubeEndpointSlice['ports'][number]>({
          // The API writes the unnamed port's name as ''.
          name: port.text('name') || undefined,
          port: port.requiredPort('port'),
          protocol: port.text('protocol') ?? 'TCP',
        }),
      ),
  }
}

function readEndpoint(
  fields: Fields,
  addressType: KubeEndpointSlice['addressType'],
): KubeEndpointSlice['endpoints'][number] {
  const conditions = fields.child('conditions')
  const ready = conditions.boolean('ready') ?? true
  const target = fields.child('targetRef')
  return strip<KubeEndpointSlice['endpoints'][number]>({
    addresses: addressType === 'FQDN' ? fields.textList('addresses') : readIps(fields, 'addresses'),
    // discovery.k8s.io/v1: an unset `ready` means ready, an unset `serving` the same as `ready`.
    ready,
    serving: conditions.boolean('serving') ?? ready,
    terminating: conditions.boolean('terminating') ?? false,
    nodeName: fields.text('nodeName'),
    zone: fields.text('zone'),
    hints: fields.has('hints') ? readHints(fields.child('hints')) : undefined,
    targetRef: fields.has('targetRef')
      ? strip<NonNullable<KubeEndpointSlice['endpoints'][number]['targetRef']>>({
          kind: target.requiredText('kind'),
          name: target.requiredText('name'),
          namespace: target.text('namespace'),
          uid: target.text('uid'),
        })
      : undefined,
  })
}

function readHints(fields: Fields): NonNullable<KubeEndpointSlice['endpoints'][number]['hints']> {
  const names = (key: string) => fields.items(key).map(item => item.requiredText('name'))
  return { forZones: names('forZones'), forNodes: names('forNodes') }
}
