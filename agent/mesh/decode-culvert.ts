/** From Culvert's own discovery messages to what the agent keeps. A message that cannot be right is refused whole (`INPUT`). */
import { fromBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf'
import { Cidr, ipFromBytes } from '../../lib/address.ts'
import type { Enrolment, EnrolmentWishes } from '../../lib/enrolment.ts'
import { mergeEnrolment } from '../../lib/enrolment.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import {
  NamespaceSchema,
  NodeSchema,
  TrustBundleSchema,
  type Enrolment as EnrolmentMessage,
} from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import type { NamespaceRecord, NodeRecord, TrustBundleRecord } from './records.ts'

const NO_WISHES: EnrolmentWishes = { problems: [] }

/** Reads a `culvert.v1.Namespace` that came under its name. Throws `INPUT`. */
export function decodeNamespace(resourceName: string, bytes: Uint8Array): NamespaceRecord {
  const from = parse(NamespaceSchema, bytes)
  if (from.name !== resourceName) throw misnamed(from.name)
  return { name: from.name, wishes: from.enrolment ? wishesOf(from.enrolment) : NO_WISHES }
}

/** Reads a `culvert.v1.Node` that came under its name. Throws `INPUT`. */
export function decodeNode(resourceName: string, bytes: Uint8Array): NodeRecord {
  const from = parse(NodeSchema, bytes)
  if (from.name !== resourceName) throw misnamed(from.name)
  try {
    return {
      name: from.name,
      ips: from.addresses.map(address => ipFromBytes(address)),
      podCidrs: from.podCidrs.map(cidr => Cidr.parse(cidr)),
    }
  } catch (err) {
    throw new CulvertError('INPUT', errorText(err), { cause: err })
  }
}

/** Reads a `culvert.v1.TrustBundle` that came under its trust domain. Throws `INPUT`. */
export function decodeTrustBundle(resourceName: string, bytes: Uint8Array): TrustBundleRecord {
  const from = parse(TrustBundleSchema, bytes)
  if (from.trustDomain !== resourceName) throw misnamed(from.trustDomain)
  if (from.roots.length === 0) throw new CulvertError('INPUT', 'a trust bundle without roots trusts nobody')
  for (const [at, pem] of from.roots.entries())
    if (!pem.includes('-----BEGIN CERTIFICATE-----'))
      throw new CulvertError('INPUT', `roots[${at}] holds no PEM certificate`)
  return { trustDomain: from.trustDomain, roots: from.roots }
}

/** What a message says of one object's wishes; lists that are empty say nothing. Throws `ADDRESS` or `INPUT`. */
export function wishesOf(from: EnrolmentMessage): EnrolmentWishes {
  const wishes: EnrolmentWishes = { problems: from.problems }
  if (from.mesh !== undefined) wishes.mesh = from.mesh
  if (from.strictInbound !== undefined) wishes.strictInbound = from.strictInbound
  if (from.requireOutbound !== undefined) wishes.requireOutbound = from.requireOutbound
  if (from.cutOpen !== undefined) wishes.cutOpen = from.cutOpen
  for (const port of [...from.excludeInboundPorts, ...from.excludeOutboundPorts])
    if (port < 1 || port > 65535) throw new CulvertError('INPUT', `enrolment: ${port} is not a port`)
  if (from.excludeInboundPorts.length > 0) wishes.excludeInboundPorts = from.excludeInboundPorts
  if (from.excludeOutboundPorts.length > 0) wishes.excludeOutboundPorts = from.excludeOutboundPorts
  if (from.excludeOutboundCidrs.length > 0)
    wishes.excludeOutboundCidrs = from.excludeOutboundCidrs.map(cidr => Cidr.parse(cidr).text)
  return wishes
}

/** The same for a message that already holds pod and namespace together. */
export function enrolmentOf(from: EnrolmentMessage): Enrolment {
  return mergeEnrolment(NO_WISHES, wishesOf(from))
}

function parse<S extends DescMessage>(schema: S, bytes: Uint8Array): MessageShape<S> {
  try {
    return fromBinary(schema, bytes)
  } catch (err) {
    throw new CulvertError('INPUT', `not a ${schema.typeName} message: ${errorText(err)}`, { cause: err })
  }
}

function misnamed(name: string): CulvertError {
  return new CulvertError('INPUT', `'${name}' is not the resource's name`)
}
