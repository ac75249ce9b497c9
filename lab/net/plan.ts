/**
 * The lab's addresses, always the same, in ranges that no test or example uses for anything else. Everything
 * is in namespaces of its own, so two labs may have the same ones.
 *
 * | what | IPv4 | IPv6 |
 * |---|---|---|
 * | fabric between nodes | 10.99.0.0/24 | fd99::/64 |
 * | control plane | 10.99.0.2 | fd99::2 |
 * | node n (from 1) | 10.99.0.(10+n) | fd99::(10+n) |
 * | pods of node n | 10.98.n.0/24 | fd98:n::/64 |
 * | services | 10.97.0.0/16 | fd97::/112 |
 */
import { bytesFromIp, Cidr, canonicalIp, ipFromBytes } from '../../lib/address.ts'
import { CulvertError } from '../../lib/errors.ts'

export const FABRIC_PREFIX = { v4: 24, v6: 64 } as const
export const CONTROL_PLANE_IPS = ['10.99.0.2', 'fd99::2'] as const

/** The gateway of every pod, as CNIs that route do it: on the node's end of the pod's own link. */
export const POD_GATEWAY = { v4: '169.254.1.1', v6: 'fe80::1' } as const

const MAX_NODES = 200
const SERVICE_CIDRS = [Cidr.parse('10.97.0.0/16'), Cidr.parse('fd97::/112')] as const

/** The addresses of the node with this number, IPv4 first. Throws `LAB` past 200 nodes. */
export function nodeIps(index: number): [string, string] {
  if (index < 1 || index > MAX_NODES) throw new CulvertError('LAB', `a lab has at most ${MAX_NODES} nodes`)
  return [`10.99.0.${10 + index}`, canonicalIp(`fd99::${(10 + index).toString(16)}`)]
}

/** The ranges that a node's pods have their addresses from, IPv4 first. */
export function podCidrs(index: number): [string, string] {
  return [`10.98.${index}.0/24`, `fd98:${index.toString(16)}::/64`]
}

/** Gives out addresses of a range, each pair (IPv4, IPv6) with the same last number, the freed ones last. */
export class AddressPool {
  readonly #base: readonly Uint8Array[]
  readonly #size: number
  readonly #cidrs: readonly Cidr[]
  readonly #used = new Set<string>()
  #next: number

  private constructor(v4: string, v6: string, first: number, size: number) {
    this.#cidrs = [Cidr.parse(v4), Cidr.parse(v6)]
    this.#base = this.#cidrs.map(cidr => bytesFromIp(cidr.text.split('/')[0]!))
    this.#size = size
    this.#next = first
  }

  static forPods(index: number): AddressPool {
    const [v4, v6] = podCidrs(index)
    return new AddressPool(v4, v6, 2, 254)
  }

  static forServices(): AddressPool {
    return new AddressPool(SERVICE_CIDRS[0].text, SERVICE_CIDRS[1].text, 10, 65_534)
  }

  /** A pair that nobody has: IPv4, IPv6. Throws `LAB` when there is none left. */
  take(): [string, string] {
    for (let tries = 0; tries < this.#size; tries++) {
      const number = this.#next
      this.#next = number >= this.#size ? 2 : number + 1
      const pair = this.#base.map(base => ipFromBytes(plus(base, number))) as [string, string]
      if (pair.some(ip => this.#used.has(ip))) continue
      for (const ip of pair) this.#used.add(ip)
      return pair
    }
    throw new CulvertError('LAB', `no address is left in ${this.#cidrs.map(cidr => cidr.text).join(', ')}`)
  }

  /** Marks addresses that were asked for. Throws `LAB` when one is in use or not of this range. */
  claim(ips: readonly string[]): void {
    for (const ip of ips) {
      if (!this.#cidrs.some(cidr => cidr.contains(ip)))
        throw new CulvertError(
          'LAB',
          `${ip} is not in ${this.#cidrs.map(cidr => cidr.text).join(' or ')}, where it would have to be`,
        )
      if (this.#used.has(ip)) throw new CulvertError('LAB', `${ip} is already in use`)
    }
    for (const ip of ips) this.#used.add(ip)
  }

  free(ips: readonly string[]): void {
    for (const ip of ips) this.#used.delete(ip)
  }
}

function plus(base: Uint8Array, number: number): Uint8Array {
  const out = Uint8Array.from(base)
  const last = out.length - 1
  out[last] = number & 0xff
  out[last - 1] = out[last - 1]! | (number >> 8)
  return out
}
