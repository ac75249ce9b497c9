/**
 * IP addresses as text and as bytes. Inside Culvert an address is always its canonical text (`10.0.0.1`,
 * `fd00::1`, never `::ffff:10.0.0.1`), so that it can key a Map; this file is the edge where it becomes that.
 */
import { isIP, isIPv6 } from 'node:net'
import { CulvertError } from './errors.ts'

export interface SocketAddress {
  /** Canonical text. */
  readonly ip: string
  readonly port: number
}

/** The canonical text of an IP address in any notation. Throws `ADDRESS`. */
export function canonicalIp(text: string): string {
  if (ipv4Number(text) >= 0) return text
  if (!isIPv6(text) || text.includes('%')) throw new CulvertError('ADDRESS', `not an IP address: '${text}'`)
  return ipFromBytes(bytesFromIp(text))
}

/** 4 or 16 bytes in network order. Throws `ADDRESS`. */
export function bytesFromIp(text: string): Uint8Array {
  const four = ipv4Number(text)
  if (four >= 0) return Uint8Array.of(four >>> 24, four >>> 16, four >>> 8, four)
  if (!isIPv6(text) || text.includes('%')) throw new CulvertError('ADDRESS', `not an IP address: '${text}'`)
  let head = text
  const out = new Uint8Array(16)
  const mixed = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (mixed) {
    const [a, b, c, d] = mixed[2]!.split('.').map(Number) as [number, number, number, number]
    head = `${mixed[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  }
  const [left, right] = head.split('::') as [string, string?]
  const leftGroups = left ? left.split(':') : []
  const rightGroups = right ? right.split(':') : []
  const view = new DataView(out.buffer)
  leftGroups.forEach((group, at) => view.setUint16(at * 2, parseInt(group, 16)))
  rightGroups.forEach((group, at) => view.setUint16(16 - (rightGroups.length - at) * 2, parseInt(group, 16)))
  return out
}

/** The 32 bits of an IPv4 address in dotted decimal without leading zeroes; -1 for any other text. */
export function ipv4Number(text: string): number {
  // Twice for each connection: this is a tenth of what a pattern and a split cost.
  let bits = 0
  let part = -1
  let parts = 0
  for (let at = 0; at < text.length; at++) {
    const digit = text.charCodeAt(at) - ZERO
    if (digit === DOT - ZERO) {
      if (part < 0 || ++parts > 3) return -1
      bits = bits * 256 + part
      part = -1
      continue
    }
    if (digit < 0 || digit > 9 || part === 0) return -1
    part = part < 0 ? digit : part * 10 + digit
    if (part > 255) return -1
  }
  return parts === 3 && part >= 0 ? bits * 256 + part : -1
}

const ZERO = 0x30
const DOT = 0x2e

/** Canonical text (RFC 5952) of 4 or 16 bytes; an IPv4-mapped address becomes IPv4. Throws `ADDRESS`. */
export function ipFromBytes(bytes: Uint8Array): string {
  return ipAt(bytes, 0, bytes.length)
}

/** The same of `length` bytes from `from` on. */
export function ipAt(bytes: Uint8Array, from: number, length: number): string {
  if (length === 4) return dotted(bytes, from)
  if (length !== 16) throw new CulvertError('ADDRESS', `an IP address has 4 or 16 bytes, not ${length}`)
  if (isMapped(bytes, from)) return dotted(bytes, from + 12)
  const groups: number[] = []
  for (let at = from; at < from + 16; at += 2) groups.push((bytes[at]! << 8) | bytes[at + 1]!)
  let zeroAt = -1
  let zeroes = 1 // a single zero group is not shortened
  for (let at = 0; at < 8; at++) {
    let end = at
    while (end < 8 && groups[end] === 0) end++
    if (end - at > zeroes) [zeroAt, zeroes] = [at, end - at]
    if (end > at) at = end
  }
  const hex = (part: number[]) => part.map(group => group.toString(16)).join(':')
  if (zeroAt < 0) return hex(groups)
  return `${hex(groups.slice(0, zeroAt))}::${hex(groups.slice(zeroAt + zeroes))}`
}

function dotted(bytes: Uint8Array, at: number): string {
  return `${bytes[at]!}.${bytes[at + 1]!}.${bytes[at + 2]!}.${bytes[at + 3]!}`
}

/** Reports whether 16 bytes are an IPv4 address in IPv6's clothes (RFC 4291 §2.5.5.2). */
function isMapped(bytes: Uint8Array, from = 0): boolean {
  if (bytes[from + 10] !== 0xff || bytes[from + 11] !== 0xff) return false
  for (let at = from; at < from + 10; at++) if (bytes[at] !== 0) return false
  return true
}

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export function formatAddress(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** Reads `10.0.0.1:80` or `[fd00::1]:80`; undefined when it is anything else, host names included. */
export function parseAddress(text: string): SocketAddress | undefined {
  const colon = text.lastIndexOf(':')
  const port = portNumber(text, colon + 1)
  if (colon < 1 || port < 1) return undefined
  if (!text.startsWith('[')) {
    const ip = text.slice(0, colon)
    return ipv4Number(ip) >= 0 ? { ip, port } : undefined
  }
  const ip = text.slice(1, colon - 1)
  if (text.charCodeAt(colon - 1) !== BRACKET || !isIPv6(ip) || ip.includes('%')) return undefined
  return { ip: canonicalIp(ip), port }
}

const BRACKET = 0x5d

/** One to five digits from `at` to the end, up to 65535; -1 for anything else. */
function portNumber(text: string, at: number): number {
  if (at >= text.length || text.length - at > 5) return -1
  let port = 0
  for (; at < text.length; at++) {
    const digit = text.charCodeAt(at) - ZERO
    if (digit < 0 || digit > 9) return -1
    port = port * 10 + digit
  }
  return port <= 65_535 ? port : -1
}

/** Reports whether the address is 127.0.0.0/8 or ::1. */
export function isLoopback(ip: string): boolean {
  return ip.startsWith('127.') || ip === '::1'
}

/** A range of addresses: `contains()` reports whether an address, in canonical text, lies in it. */
export class Cidr {
  readonly text: string
  readonly prefix: number
  readonly #bytes: Uint8Array

  private constructor(text: string, bytes: Uint8Array, prefix: number) {
    this.text = text
    this.#bytes = bytes
    this.prefix = prefix
  }

  /** Reads `10.0.0.0/8`, `fd00::/8`, or a single address. Throws `ADDRESS`. */
  static parse(text: string): Cidr {
    const [ip = '', length, ...rest] = text.trim().split('/')
    const bytes = isIP(ip) && rest.length === 0 ? bytesFromIp(ip) : undefined
    const prefix =
      length === undefined ? (bytes?.length ?? 0) * 8 : /^\d{1,3}$/.test(length) ? Number(length) : -1
    if (!bytes || prefix < 0 || prefix > bytes.length * 8)
      throw new CulvertError('ADDRESS', `not a CIDR: '${text}'`)
    return Cidr.fromBytes(bytes, prefix)
  }

  /**
   * From 4 or 16 bytes and a prefix length in bits; a range of IPv4-mapped addresses becomes one of IPv4, as the
   * addresses do. Throws `ADDRESS`.
   */
  static fromBytes(bytes: Uint8Array, prefix: number): Cidr {
    const isPrefix = Number.isInteger(prefix) && prefix >= 0 && prefix <= bytes.length * 8
    if ((bytes.length !== 4 && bytes.length !== 16) || !isPrefix)
      throw new CulvertError('ADDRESS', `not a CIDR: ${bytes.length} bytes, prefix ${prefix}`)
    if (bytes.length === 16 && prefix >= 96 && isMapped(bytes))
      return Cidr.fromBytes(bytes.subarray(12), prefix - 96)
    const masked = bytes.map((byte, at) => byte & (0xff << (8 - Math.max(0, Math.min(8, prefix - at * 8)))))
    return new Cidr(`${ipFromBytes(masked)}/${prefix}`, masked, prefix)
  }

  contains(ip: string): boolean {
    if (ip.includes(':') !== (this.#bytes.length === 16)) return false
    const other = bytesFromIp(ip)
    for (let at = 0, left = this.prefix; left > 0; at++, left -= 8) {
      const mask = left >= 8 ? 0xff : (0xff << (8 - left)) & 0xff
      if ((other[at]! & mask) !== this.#bytes[at]!) return false
    }
    return true
  }
}
