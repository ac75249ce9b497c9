/**
 * What Culvert's own server adds to workloads and services: messages of our own, carried as extensions. One that cannot
 * be right makes the whole resource wrong (`INPUT`), as everywhere; without one, everything has a default.
 */
import { fromBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf'
import { ipFromBytes } from '../../lib/address.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import {
  Readiness as ReadinessMessage,
  ServiceInfoSchema,
  WorkloadInfoSchema,
  type ServiceInfo,
  type WorkloadInfo,
} from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { Extension } from '../../lib/proto/gen/istio/workload_pb.js'
import { enrolmentOf } from './decode-culvert.ts'
import type { HostPort, Readiness } from './records.ts'

const WORKLOAD_EXTENSION = 'culvert.dev/workload'
const SERVICE_EXTENSION = 'culvert.dev/service'

const NO_NODE_PORTS: ReadonlyMap<number, number> = new Map()

/** Undefined when the server is another. Throws `INPUT`. */
export function workloadInfo(extensions: readonly Extension[]): WorkloadInfo | undefined {
  return extension(WORKLOAD_EXTENSION, WorkloadInfoSchema, extensions)
}

/** Undefined for most services. Throws `INPUT`. */
export function serviceInfo(extensions: readonly Extension[]): ServiceInfo | undefined {
  return extension(SERVICE_EXTENSION, ServiceInfoSchema, extensions)
}

/** The parts of a workload's extension that may be wrong in themselves. Throws `INPUT`. */
export function workloadDetails(info: WorkloadInfo): {
  readonly enrolment: Enrolment | undefined
  readonly hostPorts: readonly HostPort[]
} {
  return decoded(WORKLOAD_EXTENSION, () => ({
    enrolment: info.enrolment && enrolmentOf(info.enrolment),
    hostPorts: info.hostPorts.map(({ hostPort, containerPort, hostIp }) => ({
      port: portNumber(hostPort),
      target: portNumber(containerPort),
      ip: hostIp.length === 0 ? undefined : ipFromBytes(hostIp),
    })),
  }))
}

/** Service port by node port. Throws `INPUT`. */
export function nodePortsOf(info: ServiceInfo | undefined): ReadonlyMap<number, number> {
  const entries = Object.entries(info?.nodePorts ?? {})
  if (entries.length === 0) return NO_NODE_PORTS
  return decoded(
    SERVICE_EXTENSION,
    () => new Map(entries.map(([nodePort, port]) => [portNumber(Number(nodePort)), portNumber(port)])),
  )
}

/** Undefined where it is not said. What is newer than this agent is taken as not ready. */
export function readinessOf(from: ReadinessMessage | undefined): Readiness | undefined {
  switch (from) {
    case undefined:
    case ReadinessMessage.READINESS_UNSPECIFIED:
      return undefined
    case ReadinessMessage.READY:
      return 'ready'
    case ReadinessMessage.SERVING:
      return 'serving'
    default:
      return 'not-ready'
  }
}

export function isPort(number: number): boolean {
  return number >= 1 && number <= 65535
}

function portNumber(number: number): number {
  if (!isPort(number)) throw new Error(`${number} is not a port`)
  return number
}

function extension<S extends DescMessage>(
  name: string,
  schema: S,
  extensions: readonly Extension[],
): MessageShape<S> | undefined {
  const config = extensions.find(each => each.name === name)?.config
  return config && decoded(name, () => fromBinary(schema, config.value))
}

function decoded<T>(name: string, decode: () => T): T {
  try {
    return decode()
  } catch (err) {
    throw new CulvertError('INPUT', `extension ${name}: ${errorText(err)}`, { cause: err })
  }
}
