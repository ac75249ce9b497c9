/** Services as the data plane knows them: virtual addresses, TCP ports, and how to spread over the endpoints. */
import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { bytesFromIp, canonicalIp } from '../../lib/address.ts'
import { addressName, nodePortName } from '../../lib/discovery-names.ts'
import type { KubeService } from '../../lib/kube/objects.ts'
import { ServiceInfoSchema } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  AddressSchema,
  AppProtocol,
  ExtensionSchema,
  IPFamilies,
  LoadBalancingSchema,
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  NetworkAddressSchema,
  PortSchema,
  ServiceSchema,
  type Extension,
  type LoadBalancing,
  type Port,
} from '../../lib/proto/gen/istio/workload_pb.js'
import { hostname } from './endpoints.ts'
import type { ResourceContent } from './resource-set.ts'

/** Name of the extension that only Culvert's agents read. */
export const SERVICE_EXTENSION = 'culvert.dev/service'

/** A service's resource; undefined for names that only point elsewhere (ExternalName). */
export function serviceResource(service: KubeService, clusterDomain: string): ResourceContent | undefined {
  const { metadata, spec } = service
  if (spec.type === 'ExternalName') return undefined
  const { name, namespace = '' } = metadata
  const ips = spec.clusterIPs.filter(ip => ip !== '' && ip !== 'None').map(ip => canonicalIp(ip))
  const message = create(ServiceSchema, {
    name,
    namespace,
    hostname: hostname({ name, namespace }, clusterDomain),
    addresses: ips.map(ip => create(NetworkAddressSchema, { address: bytesFromIp(ip) })),
    ports: spec.ports.filter(({ protocol }) => protocol === 'TCP').map(portOf),
    ...loadBalancingOf(service),
    ipFamilies: familiesOf(spec.ipFamilies ?? []),
    canonical: true,
    extensions: extensionsOf(service),
  })
  return {
    bytes: toBinary(AddressSchema, create(AddressSchema, { type: { case: 'service', value: message } })),
    aliases: [
      ...[...ips, ...externalIps(service)].map(ip => addressName('', ip)),
      ...nodePortsOf(service).map(({ nodePort }) => nodePortName(nodePort)),
    ],
  }
}

/** What only Culvert's agents read; nothing for most services. */
function extensionsOf(service: KubeService): Extension[] {
  const { sessionAffinity } = service.spec
  const external = externalIps(service)
  const nodePorts = nodePortsOf(service)
  if (sessionAffinity !== 'ClientIP' && external.length === 0 && nodePorts.length === 0) return []
  const info = create(ServiceInfoSchema, {
    clientAffinity: sessionAffinity === 'ClientIP',
    externalAddresses: external.map(ip => bytesFromIp(ip)),
    nodePorts: Object.fromEntries(nodePorts.map(({ nodePort, port }) => [nodePort, port])),
  })
  return [create(ExtensionSchema, { name: SERVICE_EXTENSION, config: anyPack(ServiceInfoSchema, info) })]
}

/** TCP ports that every node has for the service. */
function nodePortsOf({ spec }: KubeService): { nodePort: number; port: number }[] {
  return spec.ports.flatMap(({ protocol, nodePort, port }) =>
    protocol === 'TCP' && nodePort !== undefined ? [{ nodePort, port }] : [],
  )
}

/**
 * Addresses from outside that kube-proxy, too, takes for the service on every node. A load balancer that lets only some
 * in is not gone around: kube-proxy does that sifting.
 */
function externalIps({ spec, status }: KubeService): string[] {
  const isOpen = (spec.loadBalancerSourceRanges ?? []).length === 0
  const balancers = isOpen ? (status?.loadBalancerIPs ?? []) : []
  return [...new Set([...(spec.externalIPs ?? []), ...balancers].map(ip => canonicalIp(ip)))].sort()
}

function portOf(port: KubeService['spec']['ports'][number]): Port {
  return create(PortSchema, {
    servicePort: port.port,
    // A named port differs from pod to pod: 0 here, the number stands in each workload.
    targetPort: typeof port.targetPort === 'number' ? port.targetPort : 0,
    appProtocol: APP_PROTOCOLS[port.appProtocol ?? ''] ?? AppProtocol.UNKNOWN,
  })
}

const APP_PROTOCOLS: Readonly<Record<string, AppProtocol>> = {
  http: AppProtocol.HTTP11,
  http2: AppProtocol.HTTP2,
  'kubernetes.io/h2c': AppProtocol.HTTP2,
  grpc: AppProtocol.GRPC,
  tcp: AppProtocol.TCP,
  tls: AppProtocol.TLS,
  https: AppProtocol.TLS,
}

function familiesOf(families: readonly string[]): IPFamilies {
  if (families.length > 1) return IPFamilies.DUAL
  if (families[0] === 'IPv4') return IPFamilies.IPV4_ONLY
  if (families[0] === 'IPv6') return IPFamilies.IPV6_ONLY
  return IPFamilies.AUTOMATIC
}

/** Kubernetes' two ways of asking for near endpoints, and its one of asking for unready ones. */
function loadBalancingOf({ spec }: KubeService): { loadBalancing?: LoadBalancing } {
  const healthPolicy = spec.publishNotReadyAddresses ? HealthPolicy.ALLOW_ALL : HealthPolicy.ONLY_HEALTHY
  const near = nearness(spec.internalTrafficPolicy, spec.trafficDistribution)
  if (!near && healthPolicy === HealthPolicy.ONLY_HEALTHY) return {}
  return { loadBalancing: create(LoadBalancingSchema, { ...near, healthPolicy }) }
}

function nearness(
  internalTrafficPolicy: string | undefined,
  trafficDistribution: string | undefined,
): { mode: Mode; routingPreference: Scope[] } | undefined {
  if (internalTrafficPolicy === 'Local') return { mode: Mode.STRICT, routingPreference: [Scope.NODE] }
  const zone = [Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE]
  if (trafficDistribution === 'PreferClose' || trafficDistribution === 'PreferSameZone')
    return { mode: Mode.FAILOVER, routingPreference: zone }
  if (trafficDistribution === 'PreferSameNode')
    return { mode: Mode.FAILOVER, routingPreference: [...zone, Scope.NODE] }
  return undefined
}
