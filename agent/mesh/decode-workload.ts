/**
 * From the wire's workload and service messages to what the agent keeps. A message that cannot be right is
 * refused whole (`INPUT`), naming the field: guessing at half of a workload could send its traffic in the clear.
 * Values of enumerations that are newer than this agent are taken as the cautious choice and not refused.
 */
import { fromBinary } from '@bufbuild/protobuf'
import { Cidr, ipFromBytes } from '../../lib/address.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { WorkloadInfo } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  AddressSchema,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  NetworkMode,
  Service_Visibility,
  TunnelProtocol,
  WorkloadStatus,
  type GatewayAddress,
  type NetworkAddress,
  type Port,
  type Service as ServiceMessage,
  type Workload as WorkloadMessage,
} from '../../lib/proto/gen/istio/workload_pb.js'
import { formatSpiffe } from '../../lib/spiffe.ts'
import {
  isPort,
  nodePortsOf,
  readinessOf,
  serviceInfo,
  workloadDetails,
  workloadInfo,
} from './decode-extensions.ts'
import { Interner } from '../../lib/interner.ts'
import type {
  HostPort,
  Locality,
  LocalityScope,
  Membership,
  PortMap,
  Service,
  Waypoint,
  Workload,
  WorkloadDetails,
} from './records.ts'

/** `<cluster>//Pod/<namespace>/<name>`: pods are of the core group, whose name is empty. */
const POD_UID = /^[^/]*\/\/Pod\//

const NO_MEMBERSHIPS: readonly Membership[] = []
const NO_NAMES: readonly string[] = []
const NO_PORTS: readonly number[] = []

export type AddressRecord =
  | { readonly kind: 'workload'; readonly workload: Workload }
  | { readonly kind: 'service'; readonly service: Service }

export interface DecoderOptions {
  /** Our network: addresses of others are not looked up. */
  readonly network: string
  /** For workloads that do not name theirs. */
  readonly trustDomain: string
  /** One object for one content, so that who compares what holds for a pod can do it at a glance. */
  readonly enrolments: Interner<Enrolment>
}

export class AddressDecoder {
  readonly #options: DecoderOptions
  readonly #text = new Interner<string>()
  readonly #ports = new Interner<PortMap>()
  readonly #memberships = new Interner<readonly Membership[]>()
  readonly #names = new Interner<readonly string[]>()
  readonly #localities = new Interner<Locality>()
  readonly #portLists = new Interner<readonly number[]>()
  readonly #hostPorts = new Interner<readonly HostPort[]>()

  constructor(options: DecoderOptions) {
    this.#options = options
  }

  /** Reads an `istio.workload.Address` that came under `resourceName`. Throws `INPUT`. */
  decode(resourceName: string, bytes: Uint8Array): AddressRecord {
    const { type } = parse(bytes)
    switch (type.case) {
      case 'workload':
        if (type.value.uid !== resourceName) throw input(`uid '${type.value.uid}' is not the resource's name`)
        return { kind: 'workload', workload: this.#workload(resourceName, type.value) }
      case 'service': {
        const key = `${type.value.namespace}/${type.value.hostname}`
        if (key !== resourceName) throw input(`service '${key}' is not the resource's name`)
        return { kind: 'service', service: this.#service(resourceName, type.value) }
      }
      default:
        throw input('neither a workload nor a service')
    }
  }

  #workload(uid: string, from: WorkloadMessage): Workload {
    if (uid === '') throw input('uid is empty')
    if (from.name === '' || from.namespace === '') throw input('a workload needs name and namespace')
    const tunnelled = from.tunnelProtocol === TunnelProtocol.HBONE
    const info = workloadInfo(from.extensions)
    return {
      uid,
      name: from.name,
      namespace: this.#intern(from.namespace),
      serviceAccount: this.#intern(from.serviceAccount),
      isPod: POD_UID.test(uid),
      identity: this.#identity(from, tunnelled),
      ips: unique(addresses(from.addresses, 'addresses')),
      network: this.#intern(from.network),
      tunnelled,
      hostNetwork: from.networkMode === NetworkMode.HOST_NETWORK,
      healthy: from.status === WorkloadStatus.HEALTHY,
      capacity: from.capacity ?? 1,
      node: this.#intern(from.node),
      cluster: this.#intern(from.clusterId),
      workloadName: this.#intern(from.workloadName || from.name),
      locality: this.#locality(from),
      memberships: this.#membershipsOf(from, info),
      policies: this.#list(from.authorizationPolicies),
      waypoint: waypoint(from.waypoint),
      details: info && this.#details(info),
    }
  }

  #service(key: string, from: ServiceMessage): Service {
    if (from.name === '' || from.namespace === '' || from.hostname === '')
      throw input('a service needs name, namespace and hostname')
    const ours = from.addresses.filter(address => address.network === this.#options.network)
    const ranges = ours.map((address, at) => range(address, `addresses[${at}]`))
    const isSingle = (cidr: Cidr) => cidr.prefix === (cidr.text.includes(':') ? 128 : 32)
    const balancing = from.loadBalancing
    const info = serviceInfo(from.extensions)
    return {
      key,
      info: { namespace: this.#intern(from.namespace), name: from.name, hostname: from.hostname },
      vips: unique(ranges.filter(isSingle).map(cidr => cidr.text.slice(0, cidr.text.lastIndexOf('/')))),
      ranges: ranges.filter(cidr => !isSingle(cidr)),
      ports: this.#portMap(from.ports, 'ports'),
      identities: from.subjectAltNames.length === 0 ? NO_NAMES : this.#list(from.subjectAltNames),
      mode: mode(balancing?.mode),
      preference: (balancing?.routingPreference ?? []).map(scope),
      allowUnhealthy: balancing?.healthPolicy === LoadBalancing_HealthPolicy.ALLOW_ALL,
      clientAffinity: info?.clientAffinity ?? false,
      externalIps: unique(addresses(info?.externalAddresses ?? [], 'externalAddresses')),
      nodePorts: nodePortsOf(info),
      canonical: from.canonical,
      namespaceOnly: from.visibility !== Service_Visibility.PUBLIC,
      waypoint: waypoint(from.waypoint ?? from.weightedWaypoints.find(each => each.destination)?.destination),
    }
  }

  #intern(text: string): string {
    return text === '' ? '' : this.#text.get(text, () => text)
  }

  #list(names: string[]): readonly string[] {
    return names.length === 0 ? NO_NAMES : this.#names.get(names.join('\n'), () => names)
  }

  #identity(from: WorkloadMessage, isNeeded: boolean): string | undefined {
    const trustDomain = from.trustDomain || this.#options.trustDomain
    const key = `${trustDomain}\n${from.namespace}\n${from.serviceAccount}`
    try {
      return this.#text.get(key, () => formatSpiffe(trustDomain, from.namespace, from.serviceAccount))
    } catch (err) {
      if (isNeeded) throw input(`the workload takes HBONE but has no identity: ${errorText(err)}`)
      return undefined
    }
  }

  #locality(from: WorkloadMessage): Locality {
    const { region = '', zone = '', subzone = '' } = from.locality ?? {}
    return this.#localities.get(`${region}\n${zone}\n${subzone}`, () => ({ region, zone, subzone }))
  }

  #membershipsOf(from: WorkloadMessage, info: WorkloadInfo | undefined): readonly Membership[] {
    const entries = Object.entries(from.services)
    if (entries.length === 0) return NO_MEMBERSHIPS
    const said = new Map(info?.endpoints.map(each => [each.service, each]))
    const memberships = entries.map(([service, { ports }]): Membership => {
      if (!service.includes('/')) throw input(`services: '${service}' is not <namespace>/<hostname>`)
      const { readiness, zones = [], nodes = [] } = said.get(service) ?? {}
      return {
        service: this.#intern(service),
        ports: this.#portMap(ports, `services[${service}]`),
        readiness: readinessOf(readiness),
        zones: this.#list(zones),
        nodes: this.#list(nodes),
      }
    })
    const signature = memberships.map(({ service, ports, readiness = '', zones, nodes }) =>
      [service, portsKey(ports), readiness, zones.join(), nodes.join()].join(' '),
    )
    return this.#memberships.get(signature.join('\n'), () => memberships)
  }

  #portMap(ports: Port[], field: string): PortMap {
    const map = new Map<number, number>()
    for (const { servicePort, targetPort } of ports) {
      if (!isPort(servicePort) || targetPort > 65535)
        throw input(`${field}: ${servicePort} to ${targetPort} are not ports`)
      map.set(servicePort, targetPort)
    }
    return this.#ports.get(portsKey(map), () => map)
  }

  #details(info: WorkloadInfo): WorkloadDetails {
    const { enrolment, hostPorts } = workloadDetails(info)
    return {
      podUid: info.podUid,
      enrolment: enrolment && this.#options.enrolments.get(JSON.stringify(enrolment), () => enrolment),
      probePorts:
        info.probePorts.length === 0
          ? NO_PORTS
          : this.#portLists.get(info.probePorts.join(), () => info.probePorts),
      terminating: info.terminating,
      serving: info.serving,
      hostPorts: this.#hostPorts.get(JSON.stringify(hostPorts), () => hostPorts),
    }
  }
}

function parse(bytes: Uint8Array) {
  try {
    return fromBinary(AddressSchema, bytes)
  } catch (err) {
    throw input(`not an Address message: ${errorText(err)}`)
  }
}

function portsKey(ports: PortMap): string {
  let key = ''
  for (const [port, target] of ports) key += `${port}:${target},`
  return key
}

function addresses(list: Uint8Array[], field: string): string[] {
  return list.map((bytes, at) => {
    try {
      return ipFromBytes(bytes)
    } catch (err) {
      throw input(`${field}[${at}]: ${errorText(err)}`)
    }
  })
}

function unique(texts: string[]): string[] {
  return texts.length < 2 ? texts : [...new Set(texts)]
}

function range({ address, length }: NetworkAddress, field: string): Cidr {
  try {
    return Cidr.fromBytes(address, length ?? address.length * 8)
  } catch (err) {
    throw input(`${field}: ${errorText(err)}`)
  }
}

function waypoint(from: GatewayAddress | undefined): Waypoint | undefined {
  switch (from?.destination.case) {
    case 'hostname': {
      const service = `${from.destination.value.namespace}/${from.destination.value.hostname}`
      return { service, ip: undefined, text: service }
    }
    case 'address': {
      const ip = addresses([from.destination.value.address], 'waypoint')[0]!
      return { service: undefined, ip, text: ip }
    }
    default:
      return undefined
  }
}

function mode(from: LoadBalancing_Mode | undefined): Service['mode'] {
  switch (from) {
    case LoadBalancing_Mode.STRICT:
      return 'strict'
    case LoadBalancing_Mode.FAILOVER:
      return 'failover'
    case LoadBalancing_Mode.PASSTHROUGH:
      return 'passthrough'
    default:
      return 'standard'
  }
}

function scope(from: LoadBalancing_Scope): LocalityScope {
  switch (from) {
    case LoadBalancing_Scope.REGION:
      return 'region'
    case LoadBalancing_Scope.ZONE:
      return 'zone'
    case LoadBalancing_Scope.SUBZONE:
      return 'subzone'
    case LoadBalancing_Scope.NODE:
      return 'node'
    case LoadBalancing_Scope.CLUSTER:
      return 'cluster'
    case LoadBalancing_Scope.NETWORK:
      return 'network'
    default:
      throw input(`loadBalancing: no such scope: ${from}`)
  }
}

function input(message: string): CulvertError {
  return new CulvertError('INPUT', message)
}
