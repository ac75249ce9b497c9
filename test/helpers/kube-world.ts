/** Kubernetes objects in few words. */
import type {
  KubeEndpointSlice,
  KubeNamespace,
  KubeNode,
  KubePod,
  KubeService,
  ObjectMeta,
} from '../../lib/kube/objects.ts'

type Annotations = Readonly<Record<string, string>>

export const ENROLLED: Annotations = { 'culvert.dev/mesh': 'enabled' }

export function kubeNode(name: string, ip: string, meta: Partial<ObjectMeta> = {}): KubeNode {
  return {
    kind: 'Node',
    metadata: { name, uid: `uid-${name}`, ...meta },
    spec: { podCIDRs: ['10.98.1.0/24'] },
    status: {
      addresses: [
        { type: 'InternalIP', address: ip },
        { type: 'Hostname', address: name },
      ],
    },
  }
}

export function kubeNamespace(name: string, annotations: Annotations = {}): KubeNamespace {
  return { kind: 'Namespace', metadata: { name, uid: `uid-${name}`, annotations } }
}

export interface PodShape {
  readonly namespace?: string
  /** Empty: none is chosen yet. */
  readonly node?: string
  readonly serviceAccount?: string
  readonly ips?: readonly string[]
  readonly uid?: string
  readonly ready?: boolean
  readonly hostNetwork?: boolean
  readonly phase?: KubePod['status']['phase']
  readonly probePorts?: readonly number[]
  readonly meta?: Partial<ObjectMeta>
}

/** A running pod, by default in `shop` on `node-a`, its service account named like it. */
export function kubePod(name: string, shape: PodShape = {}): KubePod {
  const { namespace = 'shop', ready = true } = shape
  return {
    kind: 'Pod',
    metadata: { name, namespace, uid: shape.uid ?? `uid-${name}`, ...shape.meta },
    spec: {
      ...(shape.node !== '' && { nodeName: shape.node ?? 'node-a' }),
      serviceAccountName: shape.serviceAccount ?? name,
      hostNetwork: shape.hostNetwork ?? false,
      containers: [{ name: 'app', image: 'app' }],
      probePorts: (shape.probePorts ?? []).map(port => ({ port, kind: 'http' })),
    },
    status: { phase: shape.phase ?? 'Running', podIPs: shape.ips ?? ['10.98.1.10'], ready },
  }
}

export function kubeService(name: string, spec: Partial<KubeService['spec']> = {}): KubeService {
  return {
    kind: 'Service',
    metadata: { name, namespace: 'shop', uid: `uid-svc-${name}` },
    spec: {
      type: 'ClusterIP',
      clusterIPs: ['10.97.0.1'],
      ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
      publishNotReadyAddresses: false,
      ...spec,
    },
  }
}

export type EndpointShape = Partial<KubeEndpointSlice['endpoints'][number]>

/** A slice of a service in `shop` with one endpoint for each pod. */
export function kubeSlice(
  service: string,
  pods: readonly KubePod[],
  endpoint: EndpointShape = {},
  more: Partial<KubeEndpointSlice> = {},
): KubeEndpointSlice {
  return {
    kind: 'EndpointSlice',
    metadata: {
      name: `${service}-v4`,
      namespace: 'shop',
      uid: `uid-slice-${service}`,
      labels: { 'kubernetes.io/service-name': service },
    },
    addressType: 'IPv4',
    serviceName: service,
    endpoints: pods.map(pod => ({
      addresses: pod.status.podIPs,
      ready: true,
      serving: true,
      terminating: false,
      targetRef: {
        kind: 'Pod',
        name: pod.metadata.name,
        namespace: pod.metadata.namespace ?? '',
        uid: pod.metadata.uid,
      },
      ...endpoint,
    })),
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    ...more,
  }
}
