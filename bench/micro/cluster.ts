/**
 * A cluster of any size, the same one every time: pods in services of ten, services in namespaces of ten, pods spread over
 * nodes of a hundred, everything enrolled. Told by the ca-server's own publisher, so that what is measured on it is
 * measured on what agents are really sent.
 */
import { Observed } from '../../ca-server/reports/observed.ts'
import { Publisher } from '../../ca-server/discovery/publisher.ts'
import { World } from '../../ca-server/world/world.ts'
import type {
  KubeEndpointSlice,
  KubeNamespace,
  KubeNode,
  KubeObject,
  KubePod,
  KubeService,
} from '../../lib/kube/objects.ts'
import type { Logger } from '../../lib/log.ts'

/** The node that the agent under test runs on; none of the pods is its own. */
export const OWN_NODE = 'node-own'
/** A node that has pods, in every cluster. */
export const NODE = 'node-0'

export const PODS_PER_SERVICE = 10
export const PODS_PER_NAMESPACE = 100
export const PODS_PER_NODE = 100

export function podIp(at: number): string {
  return `10.${64 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`
}

export function serviceIp(at: number): string {
  return `10.${32 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`
}

/** Every object of a cluster with so many pods. */
export function clusterOf(pods: number): KubeObject[] {
  const objects: KubeObject[] = [...nodesOf(pods), ...namespacesOf(pods)]
  for (const [at, service] of servicesOf(pods).entries()) objects.push(service, slice(at, pods))
  for (let at = 0; at < pods; at++) objects.push(podOf(at))
  return objects
}

/** The nodes of so many pods, and the one of the agent under test. */
export function nodesOf(pods: number): KubeNode[] {
  const length = Math.ceil(pods / PODS_PER_NODE)
  return [node(OWN_NODE, 65_534), ...Array.from({ length }, (_, at) => node(`node-${at}`, at))]
}

export function namespacesOf(pods: number): KubeNamespace[] {
  return Array.from({ length: Math.ceil(pods / PODS_PER_NAMESPACE) }, (_, at) => namespace(at))
}

export function servicesOf(pods: number): KubeService[] {
  return Array.from({ length: Math.ceil(pods / PODS_PER_SERVICE) }, (_, at) => service(at))
}

export interface PublishedCluster {
  readonly world: World
  readonly observed: Observed
  readonly publisher: Publisher
}

/** The cluster, published; every pod counts as tunnelled to, for no agent will report it. */
export async function publishedCluster(
  pods: number,
  roots: () => readonly string[],
  log: Logger,
): Promise<PublishedCluster> {
  const world = new World()
  const store = { load: async () => [], record: async () => undefined }
  const observed = await Observed.open({ world, store, log })
  const settings = {
    clusterId: 'Kubernetes',
    clusterDomain: 'cluster.local',
    trustDomain: 'cluster.local',
    tunnelWithoutReport: true,
  }
  const publisher = new Publisher({ world, observed, settings, roots, log })
  world.replaceAll(clusterOf(pods))
  publisher.flush()
  return { world, observed, publisher }
}

function namespaceOf(podOrFirst: number): string {
  return `ns-${Math.floor(podOrFirst / PODS_PER_NAMESPACE)}`
}

function node(name: string, at: number): KubeNode {
  return {
    kind: 'Node',
    metadata: { name, uid: `uid-${name}` },
    spec: { podCIDRs: [] },
    status: { addresses: [{ type: 'InternalIP', address: `192.168.${at >> 8}.${at & 255}` }] },
  }
}

function namespace(at: number): KubeNamespace {
  const name = `ns-${at}`
  return {
    kind: 'Namespace',
    metadata: { name, uid: `uid-${name}`, annotations: { 'culvert.dev/mesh': 'enabled' } },
  }
}

function service(at: number): KubeService {
  const name = `app-${at}`
  return {
    kind: 'Service',
    metadata: { name, namespace: namespaceOf(at * PODS_PER_SERVICE), uid: `uid-service-${at}` },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [serviceIp(at)],
      ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
      publishNotReadyAddresses: false,
    },
  }
}

function slice(at: number, pods: number): KubeEndpointSlice {
  const first = at * PODS_PER_SERVICE
  const members = Array.from({ length: Math.min(PODS_PER_SERVICE, pods - first) }, (_, each) =>
    podOf(first + each),
  )
  return {
    kind: 'EndpointSlice',
    metadata: { name: `app-${at}-v4`, namespace: namespaceOf(first), uid: `uid-slice-${at}` },
    addressType: 'IPv4',
    serviceName: `app-${at}`,
    endpoints: members.map(({ metadata, status }) => ({
      addresses: status.podIPs,
      ready: true,
      serving: true,
      terminating: false,
      targetRef: { kind: 'Pod', name: metadata.name, namespace: metadata.namespace!, uid: metadata.uid },
    })),
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  }
}

/** Pod number `at`, ready or not. */
export function podOf(at: number, ready = true): KubePod {
  const app = `app-${Math.floor(at / PODS_PER_SERVICE)}`
  const hash = (at * 2_654_435_761) % 2 ** 32
  return {
    kind: 'Pod',
    metadata: {
      name: `${app}-${hash.toString(36).padStart(7, '0')}`,
      namespace: namespaceOf(at),
      uid: `00000000-0000-4000-8000-${at.toString(16).padStart(12, '0')}`,
      labels: { app },
    },
    spec: {
      nodeName: `node-${Math.floor(at / PODS_PER_NODE)}`,
      serviceAccountName: app,
      hostNetwork: false,
      containers: [{ name: 'app', image: 'app' }],
      probePorts: [{ port: 8080, kind: 'http' }],
    },
    status: { phase: 'Running', podIPs: [podIp(at)], ready },
  }
}
