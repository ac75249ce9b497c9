/** `struct sockaddr_in` and `sockaddr_in6` as bytes: family in the machine's order, port and address in the network's. */
import { bytesFromIp, ipAt, ipv4Number, type SocketAddress } from '../../lib/address.ts'

export const AF_INET = 2
export const AF_INET6 = 10

/** Long enough for either family. */
export const SOCKADDR_BYTES = 28

// Reused: a connection needs two of them, for a moment, and each thread has its own copy of this module.
const four = new Uint8Array(16)
const six = new Uint8Array(SOCKADDR_BYTES)
four[0] = AF_INET
six[0] = AF_INET6

/** The kernel's form of an address, good until the next call; its family is that of the text. Throws `ADDRESS`. */
export function encodeSockaddr(ip: string, port: number): Uint8Array {
  const bits = ipv4Number(ip)
  const bytes = bits >= 0 ? four : six
  bytes[2] = port >>> 8
  bytes[3] = port
  if (bits >= 0) {
    bytes[4] = bits >>> 24
    bytes[5] = bits >>> 16
    bytes[6] = bits >>> 8
    bytes[7] = bits
  } else bytes.set(bytesFromIp(ip), 8)
  return bytes
}

/**
 * Reads the kernel's form, the first `length` bytes; a mapped address becomes IPv4. Undefined for any other family and for
 * what is too short.
 */
export function decodeSockaddr(bytes: Uint8Array, length = bytes.length): SocketAddress | undefined {
  if (length < 16) return undefined
  const family = bytes[0]! | (bytes[1]! << 8)
  const port = (bytes[2]! << 8) | bytes[3]!
  if (family === AF_INET) return { ip: ipAt(bytes, 4, 4), port }
  if (family === AF_INET6 && length >= 24) return { ip: ipAt(bytes, 8, 16), port }
  return undefined
}
