/**
 * Responses as they go out: resources are written by hand, straight from the form in which they are kept. Each is sent to
 * every agent, and making message objects of it for each of them first takes ten times as long as the bytes.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { WireType } from '@bufbuild/protobuf/wire'
import {
  DeltaDiscoveryResponseSchema,
  type DeltaDiscoveryResponse,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import type { Resource } from './resource-set.ts'

// Field numbers: lib/proto/envoy/discovery.proto, google.protobuf.Any.
const RESPONSE = { resources: 2 }
const RESOURCE = { version: 1, any: 2, name: 3, aliases: 4 }
const ANY = { typeUrl: 1, value: 2 }

export interface Response {
  readonly typeUrl: string
  readonly nonce: string
  readonly revision: number
  readonly resources: readonly Resource[]
  readonly removed: readonly string[]
}

/**
 * The response, ready to be encoded. Its resources are in it as bytes, which binary formats carry as they are; for text
 * see `spelledOut`.
 */
export function encodeResponse({
  typeUrl,
  nonce,
  revision,
  resources,
  removed,
}: Response): DeltaDiscoveryResponse {
  const response = create(DeltaDiscoveryResponseSchema, {
    typeUrl,
    nonce,
    systemVersionInfo: `${revision}`,
    removedResources: [...removed],
  })
  if (resources.length > 0)
    response.$unknown = [
      {
        no: RESPONSE.resources,
        wireType: WireType.LengthDelimited,
        data: encodeResources(typeUrl, resources),
      },
    ]
  return response
}

/** The same response with its resources as messages. */
export function spelledOut(response: DeltaDiscoveryResponse): DeltaDiscoveryResponse {
  return fromBinary(DeltaDiscoveryResponseSchema, toBinary(DeltaDiscoveryResponseSchema, response))
}

/** The resources as repeated fields, without the tag of the first. */
function encodeResources(typeUrl: string, resources: readonly Resource[]): Uint8Array {
  const lengths = resources.map(resource => resourceLengths(typeUrl, resource))
  const bytes = Buffer.allocUnsafe(lengths.reduce((sum, { resource }) => sum + fieldLength(resource), -1))
  let at = 0
  for (const [index, { name, version, aliases, content }] of resources.entries()) {
    const { resource, any } = lengths[index]!
    if (index > 0) bytes[at++] = tag(RESPONSE.resources)
    at = writeLength(bytes, at, resource)
    at = writeText(bytes, at, RESOURCE.version, version)
    bytes[at++] = tag(RESOURCE.any)
    at = writeLength(bytes, at, any)
    at = writeText(bytes, at, ANY.typeUrl, typeUrl)
    bytes[at++] = tag(ANY.value)
    at = writeLength(bytes, at, content.length)
    at += bytes.write(content, at, 'latin1')
    at = writeText(bytes, at, RESOURCE.name, name)
    for (const alias of aliases) at = writeText(bytes, at, RESOURCE.aliases, alias)
  }
  return bytes
}

function resourceLengths(
  typeUrl: string,
  { name, version, aliases, content }: Resource,
): { resource: number; any: number } {
  const textLength = (text: string): number => fieldLength(Buffer.byteLength(text))
  const any = textLength(typeUrl) + fieldLength(content.length)
  const own = textLength(version) + fieldLength(any) + textLength(name)
  return { any, resource: aliases.reduce((sum, alias) => sum + textLength(alias), own) }
}

/** Of a field with a number below 16 and so many bytes: its tag, their length, and they. */
function fieldLength(bytes: number): number {
  let length = 2 + bytes
  for (let left = bytes; left >= 128; left >>>= 7) length++
  return length
}

function tag(field: number): number {
  return (field << 3) | WireType.LengthDelimited
}

function writeText(into: Buffer, at: number, field: number, text: string): number {
  into[at++] = tag(field)
  at = writeLength(into, at, Buffer.byteLength(text))
  return at + into.write(text, at)
}

/** A varint; gives where to go on. */
function writeLength(into: Buffer, at: number, length: number): number {
  while (length >= 128) {
    into[at++] = (length & 127) | 128
    length >>>= 7
  }
  into[at++] = length
  return at
}
