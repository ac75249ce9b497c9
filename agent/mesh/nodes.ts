/** The cluster's nodes: their own addresses, and the ranges that their pods' addresses come from. */
import type { Cidr } from '../../lib/address.ts'
import type { ChangeLog } from './changes.ts'
import { CidrMap } from './cidr-map.ts'
import type { NodeRecord } from './records.ts'

export class Nodes {
  readonly #changes: ChangeLog
  readonly #byName = new Map<string, NodeRecord>()
  readonly #byIp = new Map<string, Set<NodeRecord>>()
  readonly #podRanges = new CidrMap<NodeRecord | undefined>()

  /** @param ranges further ranges of cluster addresses, which no Node object names */
  constructor(changes: ChangeLog, ranges: readonly Cidr[]) {
    this.#changes = changes
    for (const range of ranges) this.#podRanges.add(range, undefined)
  }

  get size(): number {
    return this.#byName.size
  }

  values(): MapIterator<NodeRecord> {
    return this.#byName.values()
  }

  /** The node's own addresses, canonical text; none when the node is not known. */
  addressesOf(name: string): readonly string[] {
    return this.#byName.get(name)?.ips ?? []
  }

  /** The node that has the address for its own. */
  at(ip: string): NodeRecord | undefined {
    return this.#byIp.get(ip)?.values().next().value
  }

  /** Reports whether the address lies in a range that pods or services get theirs from. */
  isInCluster(ip: string): boolean {
    return this.#podRanges.has(ip)
  }

  put(node: NodeRecord): void {
    this.#drop(node.name)
    this.#byName.set(node.name, node)
    for (const ip of node.ips) {
      const nodes = this.#byIp.get(ip)
      if (nodes) nodes.add(node)
      else this.#byIp.set(ip, new Set([node]))
    }
    for (const range of node.podCidrs) this.#podRanges.add(range, node)
    this.#changes.broad()
  }

  remove(name: string): void {
    if (this.#drop(name)) this.#changes.broad()
  }

  #drop(name: string): boolean {
    const node = this.#byName.get(name)
    if (!node) return false
    this.#byName.delete(name)
    for (const ip of node.ips) {
      const nodes = this.#byIp.get(ip)!
      nodes.delete(node)
      if (nodes.size === 0) this.#byIp.delete(ip)
    }
    for (const range of node.podCidrs) this.#podRanges.delete(range, node)
    return true
  }
}
