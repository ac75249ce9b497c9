/** Discovery resources in few words, and a mesh filled with them through the same door as the stream uses. */
import { create, toBinary, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Mesh, type MeshOptions } from '../../agent/mesh/mesh.ts'
import type { LocalPod } from '../../agent/pods/source.ts'
import { bytesFromIp } from '../../lib/address.ts'
import { ServiceInfoSchema, WorkloadInfoSchema } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { AuthorizationSchema } from '../../lib/proto/gen/istio/authorization_pb.js'
import {
  AddressSchema,
  TunnelProtocol,
  type ServiceSchema,
  type WorkloadSchema,
} from '../../lib/proto/gen/istio/workload_pb.js'
import { nodeBytes, namespaceBytes } from './discovery-server.ts'

export type WorkloadInit = Exclude<MessageInitShape<typeof WorkloadSchema>, { $typeName: string }>
export type ServiceInit = Exclude<MessageInitShape<typeof ServiceSchema>, { $typeName: string }>
export type PolicyInit = Exclude<MessageInitShape<typeof AuthorizationSchema>, { $typeName: string }>
type InfoInit = MessageInitShape<typeof WorkloadInfoSchema>

export function uidOf(namespace: string, name: string): string {
  return `Kubernetes//Pod/${namespace}/${name}`
}

export interface PodShape {
  namespace?: string
  name: string
  ips?: string[]
  hbone?: boolean
  /** `<namespace>/<hostname>` to service port to target port. */
  services?: Record<string, Record<number, number>>
  info?: InfoInit
  more?: WorkloadInit
}

export function workloadInit(shape: PodShape): WorkloadInit {
  const { namespace = 'shop', name, ips = [], hbone = true, services = {}, info, more } = shape
  return {
    uid: uidOf(namespace, name),
    name,
    namespace,
    serviceAccount: name,
    addresses: ips.map(ip => bytesFromIp(ip)),
    tunnelProtocol: hbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    trustDomain: 'cluster.local',
    node: 'node-b',
    clusterId: 'Kubernetes',
    services: Object.fromEntries(
      Object.entries(services).map(([key, ports]) => [
        key,
        {
          ports: Object.entries(ports).map(([servicePort, targetPort]) => ({
            servicePort: Number(servicePort),
            targetPort,
          })),
        },
      ]),
    ),
    extensions: info ? [extensionInit('culvert.dev/workload', WorkloadInfoSchema, info)] : [],
    ...more,
  }
}

function extensionInit<S extends DescMessage>(name: string, schema: S, info: MessageInitShape<S>) {
  return { name, config: anyPack(schema, create(schema, info)) }
}

export interface ServiceShape {
  namespace?: string
  name: string
  vips?: string[]
  ports?: Record<number, number>
  info?: MessageInitShape<typeof ServiceInfoSchema>
  more?: ServiceInit
}

export function serviceKey(namespace: string, name: string): string {
  return `${namespace}/${name}.${namespace}.svc.cluster.local`
}

export function serviceInit(shape: ServiceShape): ServiceInit {
  const { namespace = 'shop', name, vips = [], ports = {}, info, more } = shape
  return {
    name,
    namespace,
    extensions: info ? [extensionInit('culvert.dev/service', ServiceInfoSchema, info)] : [],
    hostname: `${name}.${namespace}.svc.cluster.local`,
    addresses: vips.map(vip => {
      const [ip, length] = vip.split('/') as [string, string?]
      return { network: '', address: bytesFromIp(ip), ...(length && { length: Number(length) }) }
    }),
    ports: Object.entries(ports).map(([servicePort, targetPort]) => ({
      servicePort: Number(servicePort),
      targetPort,
    })),
    ...more,
  }
}

export function workloadBytes(init: WorkloadInit): Uint8Array {
  return toBinary(AddressSchema, create(AddressSchema, { type: { case: 'workload', value: init } }))
}

export function serviceBytes(init: ServiceInit): Uint8Array {
  return toBinary(AddressSchema, create(AddressSchema, { type: { case: 'service', value: init } }))
}

export function policyBytes(init: PolicyInit): Uint8Array {
  return toBinary(AuthorizationSchema, create(AuthorizationSchema, init))
}

export class MeshWorld {
  readonly mesh: Mesh

  constructor(options: Partial<MeshOptions> = {}) {
    this.mesh = new Mesh({ nodeName: 'node-a', ...options })
  }

  pod(shape: PodShape): this {
    const init = workloadInit(shape)
    return this.put('istio.workload.Address', init.uid!, workloadBytes(init))
  }

  removePod(name: string, namespace = 'shop'): this {
    return this.remove('istio.workload.Address', uidOf(namespace, name))
  }

  service(shape: ServiceShape): this {
    const init = serviceInit(shape)
    return this.put('istio.workload.Address', `${init.namespace}/${init.hostname}`, serviceBytes(init))
  }

  policy(init: PolicyInit): this {
    return this.put('istio.security.Authorization', `${init.namespace}/${init.name}`, policyBytes(init))
  }

  node(name: string, ips: string[], podCidrs: string[]): this {
    const bytes = nodeBytes({ name, addresses: ips.map(ip => bytesFromIp(ip)), podCidrs })
    return this.put('culvert.v1.Node', name, bytes)
  }

  namespace(name: string, enrolment: Parameters<typeof namespaceBytes>[0]['enrolment']): this {
    return this.put('culvert.v1.Namespace', name, namespaceBytes({ name, ...(enrolment && { enrolment }) }))
  }

  synced(): this {
    for (const kind of this.mesh.kinds) kind.settled()
    return this
  }

  put(type: string, name: string, bytes: Uint8Array): this {
    this.#kind(type).put(name, bytes)
    return this
  }

  remove(type: string, name: string): this {
    this.#kind(type).remove(name)
    return this
  }

  #kind(type: string) {
    const kind = this.mesh.kinds.find(each => each.typeUrl.endsWith(`/${type}`))
    if (!kind) throw new Error(`no such type: ${type}`)
    return kind
  }
}

export function localPod(name: string, ips: string[], more: Partial<LocalPod> = {}): LocalPod {
  return {
    uid: `uid-${name}`,
    namespace: 'shop',
    name,
    serviceAccount: name,
    ips,
    annotations: {},
    netns: `/run/netns/${name}`,
    terminating: false,
    ...more,
  }
}
