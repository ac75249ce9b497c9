/**
 * Puts the TCP streams of a capture together, far enough to say who sent which bytes to whom, in the order the packets
 * were seen: on a wire of our own nothing is lost.
 */
import { formatAddress, ipFromBytes } from '../../lib/address.ts'
import { packetsOf } from '../capture/pcap.ts'

export interface TcpFlow {
  readonly source: { readonly ip: string; readonly port: number }
  readonly destination: { readonly ip: string; readonly port: number }
  /** The payload in one direction. */
  readonly bytes: Buffer
}

const ETHERTYPE = { ipv4: 0x0800, ipv6: 0x86dd } as const
const ETHERNET_HEADER_BYTES = 14
const TCP = 6

/** The TCP flows of a capture, one per direction, those without payload included. */
export function tcpFlows(pcap: Buffer): TcpFlow[] {
  const flows = new Map<
    string,
    { source: TcpFlow['source']; destination: TcpFlow['destination']; next: number; parts: Buffer[] }
  >()
  for (const { bytes } of packetsOf(pcap)) {
    const segment = tcpSegment(ipPacket(bytes))
    if (!segment) continue
    const key = `${formatAddress(segment.source.ip, segment.source.port)}>${formatAddress(segment.destination.ip, segment.destination.port)}`
    let flow = flows.get(key)
    if (!flow || segment.isSyn) {
      flow = {
        source: segment.source,
        destination: segment.destination,
        next: segment.sequence + (segment.isSyn ? 1 : 0),
        parts: flow?.parts ?? [],
      }
      flows.set(key, flow)
    }
    // Sent again: what was seen already is left out. Sequence numbers wrap.
    const known = (flow.next - segment.sequence) | 0
    if (segment.payload.length === 0 || known >= segment.payload.length) continue
    flow.parts.push(segment.payload.subarray(Math.max(0, known)))
    flow.next = (segment.sequence + segment.payload.length) >>> 0
  }
  return [...flows.values()].map(({ source, destination, parts }) => ({
    source,
    destination,
    bytes: Buffer.concat(parts),
  }))
}

function ipPacket(frame: Buffer): Buffer | undefined {
  if (frame.length < ETHERNET_HEADER_BYTES) return undefined
  const type = frame.readUInt16BE(12)
  return type === ETHERTYPE.ipv4 || type === ETHERTYPE.ipv6
    ? frame.subarray(ETHERNET_HEADER_BYTES)
    : undefined
}

interface Segment {
  readonly source: TcpFlow['source']
  readonly destination: TcpFlow['destination']
  readonly sequence: number
  readonly isSyn: boolean
  readonly payload: Buffer
}

function tcpSegment(ip: Buffer | undefined): Segment | undefined {
  if (!ip || ip.length < 20) return undefined
  const isV6 = ip[0]! >> 4 === 6
  if (isV6 && (ip.length < 40 || ip[6] !== TCP)) return undefined
  if (!isV6 && ip[9] !== TCP) return undefined
  const headerLength = isV6 ? 40 : (ip[0]! & 0xf) * 4
  const end = isV6 ? 40 + ip.readUInt16BE(4) : ip.readUInt16BE(2)
  const tcp = ip.subarray(headerLength, Math.min(end || ip.length, ip.length))
  if (tcp.length < 20) return undefined
  const [from, to, size] = isV6 ? [8, 24, 16] : [12, 16, 4]
  return {
    source: { ip: ipFromBytes(ip.subarray(from, from + size)), port: tcp.readUInt16BE(0) },
    destination: { ip: ipFromBytes(ip.subarray(to, to + size)), port: tcp.readUInt16BE(2) },
    sequence: tcp.readUInt32BE(4),
    isSyn: (tcp[13]! & 0x02) !== 0,
    payload: tcp.subarray((tcp[12]! >> 4) * 4),
  }
}

const HANDSHAKE = 22
const SERVER_HELLO = 2
const SUPPORTED_VERSIONS = 43

/**
 * The TLS version that a server chose, from the first record it sent (RFC 8446 §4.1.3, §4.2.1): `0x0304` is 1.3.
 * Undefined when the flow does not begin with a ServerHello.
 */
export function tlsVersionChosen(fromServer: Buffer): number | undefined {
  if (fromServer.length < 11 || fromServer[0] !== HANDSHAKE || fromServer[5] !== SERVER_HELLO)
    return undefined
  const hello = fromServer.subarray(9, 9 + fromServer.readUIntBE(6, 3))
  if (hello.length < 38) return undefined
  const legacy = hello.readUInt16BE(0)
  let at = 34 + 1 + hello[34]! + 3 // version, random, session id, suite and compression
  if (at + 2 > hello.length) return legacy
  const end = Math.min(hello.length, at + 2 + hello.readUInt16BE(at))
  for (at += 2; at + 4 <= end;) {
    const type = hello.readUInt16BE(at)
    const length = hello.readUInt16BE(at + 2)
    if (type === SUPPORTED_VERSIONS && length === 2) return hello.readUInt16BE(at + 4)
    at += 4 + length
  }
  return legacy
}
