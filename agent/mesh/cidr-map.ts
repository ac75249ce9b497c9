/**
 * Values filed under ranges of addresses and found by an address in them, longest prefix first. A lookup costs
 * one map access for each prefix length in use, which in a cluster are few.
 */
import { bytesFromIp, type Cidr } from '../../lib/address.ts'

type Family = Map<number, Map<string, Set<unknown>>>

export class CidrMap<T> {
  readonly #v4: Family = new Map()
  readonly #v6: Family = new Map()
  // Prefix lengths in use, longest first.
  #lengths4: number[] = []
  #lengths6: number[] = []
  #size = 0

  /** Number of (range, value) pairs. */
  get size(): number {
    return this.#size
  }

  add(cidr: Cidr, value: T): void {
    const { family, key } = locate(this.#v4, this.#v6, cidr)
    let ranges = family.get(cidr.prefix)
    if (!ranges) {
      family.set(cidr.prefix, (ranges = new Map()))
      this.#sortLengths()
    }
    let values = ranges.get(key)
    if (!values) ranges.set(key, (values = new Set()))
    if (values.has(value)) return
    values.add(value)
    this.#size++
  }

  delete(cidr: Cidr, value: T): void {
    const { family, key } = locate(this.#v4, this.#v6, cidr)
    const ranges = family.get(cidr.prefix)
    const values = ranges?.get(key)
    if (!ranges || !values?.delete(value)) return
    this.#size--
    if (values.size > 0) return
    ranges.delete(key)
    if (ranges.size > 0) return
    family.delete(cidr.prefix)
    this.#sortLengths()
  }

  /** The values of each range that holds the address (canonical text), longest prefix first. */
  *lookup(ip: string): Generator<ReadonlySet<T>> {
    if (this.#size === 0) return
    const isV6 = ip.includes(':')
    const lengths = isV6 ? this.#lengths6 : this.#lengths4
    if (lengths.length === 0) return
    const bytes = bytesFromIp(ip)
    for (const length of lengths) {
      const values = (isV6 ? this.#v6 : this.#v4).get(length)?.get(maskedKey(bytes, length))
      if (values) yield values as ReadonlySet<T>
    }
  }

  /** Reports whether any range holds the address. */
  has(ip: string): boolean {
    return this.lookup(ip).next().done === false
  }

  #sortLengths(): void {
    this.#lengths4 = [...this.#v4.keys()].sort((a, b) => b - a)
    this.#lengths6 = [...this.#v6.keys()].sort((a, b) => b - a)
  }
}

function locate(v4: Family, v6: Family, cidr: Cidr): { family: Family; key: string } {
  const bytes = bytesFromIp(cidr.text.slice(0, cidr.text.lastIndexOf('/')))
  return { family: bytes.length === 16 ? v6 : v4, key: maskedKey(bytes, cidr.prefix) }
}

/** The first `length` bits as a string usable as a key; the bits after them are zero. */
function maskedKey(bytes: Uint8Array, length: number): string {
  let key = ''
  for (let at = 0, left = length; at < bytes.length && left > 0; at++, left -= 8) {
    const byte = bytes[at]!
    key += String.fromCharCode(left >= 8 ? byte : byte & (0xff << (8 - left)))
  }
  return key
}
