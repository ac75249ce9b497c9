/**
 * What Kubernetes' endpoint slice controller does: the addresses behind a Service, from its selector and the
 * pods there are. One slice per family and per set of port numbers (a named target port may mean another
 * number in another pod).
 */
import { SERVICE_NAME_LABEL } from '../../lib/kube/read.ts'
import type { KubeEndpointSlice, KubePod, KubeService } from '../../lib/kube/objects.ts'

type Ports = KubeEndpointSlice['ports']

/**
 * The slices of a Service. `zoneOf` gives the zone of a node, if it has one; `uidOf` gives each slice's name a uid that
 * stays the same.
 */
export function endpointSlicesFor(
  service: KubeService,
  pods: readonly KubePod[],
  zoneOf: (node: string) => string | undefined,
  uidOf: (name: string) => string,
): KubeEndpointSlice[] {
  const { selector } = service.spec
  if (!selector || Object.keys(selector).length === 0 || service.spec.type === 'ExternalName') return []
  const behind = pods.filter(pod => isBehind(pod, service.metadata.namespace, selector))
  const slices: KubeEndpointSlice[] = []
  for (const [family, isOfFamily] of [
    ['IPv4', (ip: string) => !ip.includes(':')],
    ['IPv6', (ip: string) => ip.includes(':')],
  ] as const) {
    if (service.spec.ipFamilies && !service.spec.ipFamilies.includes(family)) continue
    const byPorts = new Map<string, { ports: Ports; endpoints: KubeEndpointSlice['endpoints'][number][] }>()
    for (const pod of behind) {
      const addresses = pod.status.podIPs.filter(isOfFamily)
      if (addresses.length === 0) continue
      const ports = portsFor(service, pod)
      const key = JSON.stringify(ports)
      const group = byPorts.get(key) ?? { ports, endpoints: [] }
      group.endpoints.push(endpointOf(service, pod, addresses, zoneOf))
      byPorts.set(key, group)
    }
    let number = 0
    for (const { ports, endpoints } of byPorts.values()) {
      const name = `${service.metadata.name}-${family.toLowerCase()}${number++ === 0 ? '' : `-${number}`}`
      slices.push({
        kind: 'EndpointSlice',
        metadata: {
          name,
          namespace: service.metadata.namespace ?? 'default',
          uid: uidOf(name),
          labels: { ...service.metadata.labels, [SERVICE_NAME_LABEL]: service.metadata.name },
          ownerReferences: [{ kind: 'Service', name: service.metadata.name, controller: true }],
        },
        addressType: family,
        serviceName: service.metadata.name,
        endpoints,
        ports,
      })
    }
  }
  return slices
}

function isBehind(
  pod: KubePod,
  namespace: string | undefined,
  selector: Readonly<Record<string, string>>,
): boolean {
  const { labels = {} } = pod.metadata
  return (
    pod.metadata.namespace === namespace &&
    (pod.status.phase === 'Pending' || pod.status.phase === 'Running') &&
    Object.entries(selector).every(([name, value]) => labels[name] === value)
  )
}

/** The Service's ports as numbers of this pod; ports whose name the pod does not have are left out. */
function portsFor(service: KubeService, pod: KubePod): Ports {
  return service.spec.ports.flatMap(({ name, targetPort, protocol }) => {
    const port = typeof targetPort === 'number' ? targetPort : namedPort(pod, targetPort, protocol)
    if (port === undefined) return []
    return [name === undefined ? { port, protocol } : { name, port, protocol }]
  })
}

function namedPort(pod: KubePod, name: string, protocol: string): number | undefined {
  return pod.spec.containers
    .flatMap(container => container.ports ?? [])
    .find(port => port.name === name && (port.protocol ?? 'TCP') === protocol)?.containerPort
}

function endpointOf(
  service: KubeService,
  pod: KubePod,
  addresses: string[],
  zoneOf: (node: string) => string | undefined,
): KubeEndpointSlice['endpoints'][number] {
  const { name, namespace = 'default', uid, deletionTimestamp } = pod.metadata
  const { nodeName } = pod.spec
  const zone = nodeName === undefined ? undefined : zoneOf(nodeName)
  const isTerminating = deletionTimestamp !== undefined
  return {
    addresses,
    ready: service.spec.publishNotReadyAddresses || (pod.status.ready && !isTerminating),
    serving: pod.status.ready,
    terminating: isTerminating,
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(zone === undefined ? {} : { zone }),
    ...hintsOf(service, nodeName, zone),
    targetRef: { kind: 'Pod', name, namespace, uid },
  }
}

/** For a service that prefers what is near, each endpoint is for its own zone, and perhaps its own node. */
function hintsOf(
  { spec: { trafficDistribution } }: KubeService,
  node: string | undefined,
  zone: string | undefined,
): Pick<KubeEndpointSlice['endpoints'][number], 'hints'> {
  if (trafficDistribution === undefined) return {}
  const forNodes = trafficDistribution === 'PreferSameNode' && node !== undefined ? [node] : []
  const forZones = zone === undefined ? [] : [zone]
  return forNodes.length + forZones.length === 0 ? {} : { hints: { forZones, forNodes } }
}
