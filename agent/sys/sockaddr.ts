/** `struct sockaddr_in` and `sockaddr_in6` as bytes: family in the machine's order, port and address in the network's. */
import { bytesFromIp, ipFromBytes, type SocketAddress } from '../../lib/address.ts'

export const AF_INET = 2
export const AF_INET6 = 10

/** Long enough for either family. */
export const SOCKADDR_BYTES = 28

/** The kernel's form of an address; its family is that of the text. Throws `ADDRESS`. */
export function encodeSockaddr(ip: string, port: number): Uint8Array {
  const address = bytesFromIp(ip)
  const isIpv6 = address.length === 16
  const bytes = new Uint8Array(isIpv6 ? 28 : 16)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, isIpv6 ? AF_INET6 : AF_INET, true)
  view.setUint16(2, port)
  bytes.set(address, isIpv6 ? 8 : 4)
  return bytes
}

/** Reads the kernel's form; a mapped address becomes IPv4. Undefined for any other family or a short buffer. */
export function decodeSockaddr(bytes: Uint8Array): SocketAddress | undefined {
  if (bytes.length < 16) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const family = view.getUint16(0, true)
  const port = view.getUint16(2)
  if (family === AF_INET) return { ip: ipFromBytes(bytes.subarray(4, 8)), port }
  if (family === AF_INET6 && bytes.length >= 24) return { ip: ipFromBytes(bytes.subarray(8, 24)), port }
  return undefined
}
