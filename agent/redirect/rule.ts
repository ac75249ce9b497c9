/**
 * What the packet rules of an enrolled pod are made of: their shape, the tables and chains that they stand in, and the
 * words that they have in common.
 */
import { Cidr } from '../../lib/address.ts'
import { MARK, MARK_MASK } from '../ports.ts'
import type { CounterName } from './counters.ts'
import type { RedirectSettings } from './settings.ts'

export type Family = 4 | 6
/** In the order in which they are programmed: the way back first, then the capture, then the lock. */
export const TABLES = ['raw', 'mangle', 'nat', 'filter'] as const
export type Table = (typeof TABLES)[number]
export type BuiltinChain = 'PREROUTING' | 'INPUT' | 'OUTPUT'

export interface Rule {
  readonly family: Family
  readonly table: Table
  readonly chain: string
  /** Unique within family; it becomes the rule's comment, `culvert:<id>`. */
  readonly id: string
  /** What it matches, in the words of iptables-save; empty for everything. */
  readonly match: string
  /** `-j …` */
  readonly target: string
  readonly reason: string
  readonly counter?: CounterName
  /** For a rule in a built-in chain: the place it must have there. */
  readonly place?: 'first' | 'last'
}

export interface Policy {
  readonly family: Family
  readonly chain: 'INPUT' | 'OUTPUT'
  /** The chain that accepts what got through. Its existence says that the policy is ours. */
  readonly end: string
  readonly reason: string
}

export interface RuleSet {
  readonly rules: readonly Rule[]
  /** Built-in chains of the filter table whose policy is DROP. */
  readonly policies: readonly Policy[]
}

/** Every chain that is ours, whatever the settings. */
export const CHAINS: Readonly<Record<Table, readonly string[]>> = {
  raw: ['CULVERT_OUTPUT'],
  mangle: ['CULVERT_PREROUTING', 'CULVERT_OUTPUT'],
  nat: ['CULVERT_PREROUTING', 'CULVERT_OUTPUT'],
  filter: ['CULVERT_INPUT', 'CULVERT_OUTPUT', 'CULVERT_INPUT_END', 'CULVERT_OUTPUT_END'],
}

export const COMMENT_PREFIX = 'culvert:'

export const hex = (value: number) => `0x${value.toString(16)}`
export const AGENT_MARK = `-m mark --mark ${hex(MARK)}/${hex(MARK_MASK)}`
export const TCP = '-p tcp -m tcp'
/** As iptables-save writes `--syn`. */
export const SYN = `${TCP} --tcp-flags FIN,SYN,RST,ACK SYN`
/** Addressed to a socket that is there: one that listens. */
export const LISTENER = '-m socket --nowildcard'
export const NOT_SYN = `${TCP} ! --tcp-flags FIN,SYN,RST,ACK SYN`

/** What a kernel may have or not. */
export interface Abilities {
  /** The match `socket` (xt_socket). Without it all SYNs that come are captured. */
  readonly seesListeners: boolean
  /**
   * The target `CT` (xt_CT). Without it a client hangs that happens to use the port of a connection that is open in its
   * name: its SYN is taken for a part of that.
   */
  readonly hasZones: boolean
}

export type Add = (
  table: Table,
  chain: string,
  id: string,
  match: string,
  target: string,
  reason: string,
  more?: { counter?: CounterName; place?: 'first' | 'last' },
) => void

/** A counted rule is called what it counts. */
export function count(
  add: Add,
  table: Table,
  chain: string,
  name: CounterName,
  match: string,
  target: string,
  reason: string,
) {
  add(table, chain, name, match, target, reason, { counter: name })
}

export function jump(
  add: Add,
  table: Table,
  builtin: BuiltinChain,
  chain: string,
  place: 'first' | 'last',
  reason: string,
) {
  add(table, builtin, `jump/${table}/${chain}`, '', chain, reason, { place })
}

export function outboundExclusions(
  settings: RedirectSettings,
  family: Family,
): { counter: CounterName; match: string }[] {
  const ports = settings.excludeOutboundPorts.map(port => ({
    counter: `excluded-port/outbound/${port}` as const,
    match: `${TCP} --dport ${port}`,
  }))
  const cidrs = settings.excludeOutboundCidrs
    .map(text => Cidr.parse(text))
    .filter(cidr => cidr.text.includes(':') === (family === 6))
    .map(cidr => ({
      counter: `excluded-cidr/outbound/${cidr.text}` as const,
      match: cidr.prefix === 0 ? '-p tcp' : `-d ${cidr.text} -p tcp`,
    }))
  return [...ports, ...cidrs]
}
