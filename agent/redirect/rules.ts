/**
 * The packet rules of an enrolled pod, as data: each with the reason it exists, and a counter wherever a packet
 * passes without the agent. What they do, in one breath: a SYN that leaves goes to 15001, a SYN that comes goes
 * to 15006, unless it is for 15008, the agent's own, on loopback or excluded; and the answers to a connection
 * that the agent opened to the application from the client's own address find their way back to the agent.
 *
 * Only SYNs: connections that were open before keep their way. Passing is RETURN, not ACCEPT, so that rules
 * that the pod has of its own still get their turn; only the agent's own connections are kept from them.
 *
 * A SYN to a port that nobody listens on is refused by the kernel, as without a mesh. Were it captured, the agent would
 * have to accept it before it can know: a kubelet's TCP probe, which asks for no more, would find every port open.
 */
import { Cidr } from '../../lib/address.ts'
import { MARK, MARK_MASK, OWN_ZONE, PORT, RETURN_MARK } from '../ports.ts'
import type { CounterName } from './counters.ts'
import { normalSettings, type RedirectSettings } from './settings.ts'

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

const hex = (value: number) => `0x${value.toString(16)}`
const AGENT_MARK = `-m mark --mark ${hex(MARK)}/${hex(MARK_MASK)}`
const TCP = '-p tcp -m tcp'
/** As iptables-save writes `--syn`. */
const SYN = `${TCP} --tcp-flags FIN,SYN,RST,ACK SYN`
/** Addressed to a socket that is there: one that listens. */
const LISTENER = '-m socket --nowildcard'
const NOT_SYN = `${TCP} ! --tcp-flags FIN,SYN,RST,ACK SYN`

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

/**
 * The rules and policies of a pod with these settings, on a kernel with these abilities, in the order in which they
 * stand. Pure. Throws `INPUT`.
 */
export function describeRules(wanted: RedirectSettings, abilities: Abilities): RuleSet {
  const settings = normalSettings(wanted)
  const rules: Rule[] = []
  const policies: Policy[] = []
  for (const family of [4, 6] as const) {
    const add: Add = (table, chain, id, match, target, reason, more = {}) =>
      rules.push({ family, table, chain, id, match, target: `-j ${target}`, reason, ...more })
    if (abilities.hasZones) ownZone(add)
    returnPath(add)
    captureInbound(add, settings, abilities)
    captureOutbound(add, settings, family)
    if (settings.strictInbound) policies.push(lockInbound(add, settings, family, abilities))
    if (settings.requireOutbound) policies.push(lockOutbound(add, settings, family))
  }
  return { rules, policies }
}

type Add = (
  table: Table,
  chain: string,
  id: string,
  match: string,
  target: string,
  reason: string,
  more?: { counter?: CounterName; place?: 'first' | 'last' },
) => void

/** A counted rule is called what it counts. */
function count(
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

function jump(
  add: Add,
  table: Table,
  builtin: BuiltinChain,
  chain: string,
  place: 'first' | 'last',
  reason: string,
) {
  add(table, builtin, `jump/${table}/${chain}`, '', chain, reason, { place })
}

function ownZone(add: Add): void {
  const before = 'before connection tracking, which it influences'
  jump(add, 'raw', 'OUTPUT', 'CULVERT_OUTPUT', 'first', `our rule comes first, ${before}`)
  add(
    'raw',
    'CULVERT_OUTPUT',
    'return/zone',
    `-o lo -p tcp ${AGENT_MARK}`,
    `CT --zone-orig ${OWN_ZONE}`,
    "the agent's connection to the application has the client's address and a port that the client may come to use itself: it is tracked apart, so that the client's is new, and captured",
  )
}

function returnPath(add: Add): void {
  const marks = `${hex(RETURN_MARK)}/${hex(MARK_MASK)}`
  const before = 'before the routing decision that they influence'
  jump(add, 'mangle', 'PREROUTING', 'CULVERT_PREROUTING', 'first', `our rules come first, ${before}`)
  jump(add, 'mangle', 'OUTPUT', 'CULVERT_OUTPUT', 'first', `our rules come first, ${before}`)
  add(
    'mangle',
    'CULVERT_PREROUTING',
    'return/tag',
    `-i lo ${SYN} ${AGENT_MARK}`,
    `CONNMARK --set-xmark ${marks}`,
    "the agent's connection to the application, made from the client's own address, arrives on loopback: remember it",
  )
  add(
    'mangle',
    'CULVERT_OUTPUT',
    'return/restore',
    `-p tcp -m connmark --mark ${marks}`,
    `CONNMARK --restore-mark --nfmask ${hex(MARK_MASK)} --ctmask ${hex(MARK_MASK)}`,
    "the application's answers on it are addressed to the client: mark them, so that policy routing brings them back to the agent",
  )
}

function captureInbound(add: Add, settings: RedirectSettings, { seesListeners }: Abilities): void {
  const chain = 'CULVERT_PREROUTING'
  jump(add, 'nat', 'PREROUTING', chain, 'first', 'every connection that comes to the pod passes here')
  add('nat', chain, 'pass/loopback/inbound', '-i lo', 'RETURN', 'loopback is the business of the pod alone')
  count(
    add,
    'nat',
    chain,
    'hbone/inbound',
    `${TCP} --dport ${PORT.hbone}`,
    'RETURN',
    'tunnels come to the agent by themselves',
  )
  count(
    add,
    'nat',
    chain,
    'udp-dns/inbound',
    '-p udp -m udp --dport 53',
    'RETURN',
    'the mesh carries TCP only; counted',
  )
  count(add, 'nat', chain, 'udp/inbound', '-p udp', 'RETURN', 'the mesh carries TCP only; counted')
  count(add, 'nat', chain, 'other/inbound', '! -p tcp', 'RETURN', 'neither TCP nor UDP; counted')
  count(
    add,
    'nat',
    chain,
    'pre-enrolment/inbound',
    NOT_SYN,
    'RETURN',
    'open before the pod was enrolled: it keeps its way; counted',
  )
  for (const port of settings.excludeInboundPorts)
    count(
      add,
      'nat',
      chain,
      `excluded-port/inbound/${port}`,
      `${TCP} --dport ${port}`,
      'RETURN',
      'excluded by annotation; counted',
    )
  count(
    add,
    'nat',
    chain,
    'captured/inbound',
    seesListeners ? `${SYN} ${LISTENER}` : SYN,
    `REDIRECT --to-ports ${PORT.inbound}`,
    'all other TCP that comes in plaintext goes to the agent, which lets it through or refuses it',
  )
  if (seesListeners)
    add(
      'nat',
      chain,
      'refused/inbound',
      SYN,
      'ACCEPT',
      'nobody listens there: the kernel says so to whoever asks, and no rule sends it elsewhere',
    )
}

function captureOutbound(add: Add, settings: RedirectSettings, family: Family): void {
  const chain = 'CULVERT_OUTPUT'
  jump(add, 'nat', 'OUTPUT', chain, 'first', 'every connection that the pod makes passes here')
  count(
    add,
    'nat',
    chain,
    'marked/outbound',
    `${SYN} ${AGENT_MARK}`,
    'ACCEPT',
    "the agent's own connections must not come back to it; counted, because a mark can be forged",
  )
  add(
    'nat',
    chain,
    'pass/marked',
    `${TCP} ${AGENT_MARK}`,
    'ACCEPT',
    "the same for the agent's connections that are first seen in the middle",
  )
  add(
    'nat',
    chain,
    'pass/return',
    `${TCP} -m mark --mark ${hex(RETURN_MARK)}/${hex(MARK_MASK)}`,
    'ACCEPT',
    "answers on their way back to the agent are not new connections of the application's",
  )
  count(
    add,
    'nat',
    chain,
    'loopback',
    '-o lo',
    'RETURN',
    'loopback, and the pod calling its own address, never leave the pod; counted',
  )
  count(
    add,
    'nat',
    chain,
    'udp-dns/outbound',
    '-p udp -m udp --dport 53',
    'RETURN',
    'the mesh carries TCP only; name look-ups are counted apart',
  )
  count(add, 'nat', chain, 'udp/outbound', '-p udp', 'RETURN', 'the mesh carries TCP only; counted')
  count(add, 'nat', chain, 'other/outbound', '! -p tcp', 'RETURN', 'neither TCP nor UDP; counted')
  count(
    add,
    'nat',
    chain,
    'pre-enrolment/outbound',
    NOT_SYN,
    'RETURN',
    'open before the pod was enrolled: it keeps its way; counted',
  )
  for (const exclusion of outboundExclusions(settings, family))
    count(add, 'nat', chain, exclusion.counter, exclusion.match, 'RETURN', 'excluded by annotation; counted')
  count(
    add,
    'nat',
    chain,
    'captured/outbound',
    SYN,
    `REDIRECT --to-ports ${PORT.outbound}`,
    'all other TCP goes to the agent, which knows the way',
  )
}

/**
 * Strict a second time, without the capture: what was captured is addressed to the agent by now, so any other
 * SYN came around it.
 */
function lockInbound(
  add: Add,
  settings: RedirectSettings,
  family: Family,
  { seesListeners }: Abilities,
): Policy {
  const chain = 'CULVERT_INPUT'
  jump(add, 'filter', 'INPUT', chain, 'first', 'before any rule that would accept')
  add(
    'filter',
    chain,
    'lock/loopback/inbound',
    '-i lo',
    'RETURN',
    'loopback is the business of the pod alone',
  )
  add(
    'filter',
    chain,
    'lock/agent/inbound',
    `-p tcp -m multiport --dports ${PORT.inbound},${PORT.hbone}`,
    'RETURN',
    'captured plaintext and tunnels are for the agent to judge',
  )
  for (const port of settings.excludeInboundPorts)
    add(
      'filter',
      chain,
      `lock/excluded-port/inbound/${port}`,
      `${TCP} --dport ${port}`,
      'RETURN',
      'excluded by annotation',
    )
  count(
    add,
    'filter',
    chain,
    'strict/inbound',
    seesListeners ? `${SYN} ${LISTENER}` : SYN,
    'DROP',
    'strict: a SYN that came around the capture gets nowhere; counted',
  )
  if (seesListeners)
    add(
      'filter',
      chain,
      'lock/refused/inbound',
      SYN,
      'REJECT --reject-with tcp-reset',
      'nobody listens there, or not a moment ago: refused, so that nothing slips in while somebody begins to',
    )
  return lockPolicy(add, family, 'INPUT')
}

function lockOutbound(add: Add, settings: RedirectSettings, family: Family): Policy {
  const chain = 'CULVERT_OUTPUT'
  const loopback = family === 4 ? '127.0.0.1/32' : '::1/128'
  jump(add, 'filter', 'OUTPUT', chain, 'first', 'before any rule that would accept')
  add(
    'filter',
    chain,
    'lock/loopback/outbound',
    '-o lo',
    'RETURN',
    'loopback is the business of the pod alone',
  )
  // A redirected packet still counts as leaving by its first device here, so loopback alone does not cover it.
  add(
    'filter',
    chain,
    'lock/agent/outbound',
    `-d ${loopback} ${TCP} --dport ${PORT.outbound}`,
    'RETURN',
    'captured connections are for the agent to judge',
  )
  add(
    'filter',
    chain,
    'lock/marked/outbound',
    `-p tcp ${AGENT_MARK}`,
    'RETURN',
    "the agent's own connections",
  )
  for (const exclusion of outboundExclusions(settings, family))
    add('filter', chain, `lock/${exclusion.counter}`, exclusion.match, 'RETURN', 'excluded by annotation')
  count(
    add,
    'filter',
    chain,
    'require/outbound',
    SYN,
    'DROP',
    'require: a SYN that went around the capture gets nowhere; counted',
  )
  return lockPolicy(add, family, 'OUTPUT')
}

/** The policy closes the chain for the moments after somebody flushed it, when none of the rules above stand. */
function lockPolicy(add: Add, family: Family, chain: 'INPUT' | 'OUTPUT'): Policy {
  const end = `CULVERT_${chain}_END`
  jump(
    add,
    'filter',
    chain,
    end,
    'last',
    'what got through all rules is accepted, although the policy is DROP',
  )
  add(
    'filter',
    end,
    `end/${chain}`,
    '',
    'ACCEPT',
    'the policy is DROP only so that a flushed table is closed, not open',
  )
  return {
    family,
    chain,
    end,
    reason: 'a filter table that was flushed is closed, not open, until it is repaired',
  }
}

function outboundExclusions(
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
