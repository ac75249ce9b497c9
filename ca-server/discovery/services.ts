/** Services as the data plane knows them: virtual addresses, TCP ports, and how to spread over the endpoints. */
import { create, toBinary } from '@bufbuild/protobuf'
import { bytesFromIp, canonicalIp } from '../../lib/address.ts'
import type { KubeService } from '../../lib/kube/objects.ts'
import {
  AddressSchema,
  AppProtocol,
  IPFamilies,
  LoadBalancingSchema,
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  NetworkAddressSchema,
  PortSchema,
  ServiceSchema,
  type LoadBalancing,
  type Port,
} from '../../lib/proto/gen/istio/workload_pb.js'
import { hostname } from './endpoints.ts'
import type { ResourceContent } from './resource-set.ts'

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
  })
  return {
    bytes: toBinary(AddressSchema, create(AddressSchema, { type: { case: 'service', value: message } })),
    aliases: ips.map(ip => `/${ip}`),
  }
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
