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
import { MARK_MASK, OWN_ZONE, PORT, RETURN_MARK } from '../ports.ts'
import { lockInbound, lockOutbound } from './lock.ts'
import {
  AGENT_MARK,
  count,
  hex,
  jump,
  LISTENER,
  NOT_SYN,
  outboundExclusions,
  SYN,
  TCP,
  type Abilities,
  type Add,
  type Family,
  type Policy,
  type Rule,
  type RuleSet,
} from './rule.ts'
import { normalSettings, type RedirectSettings } from './settings.ts'

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
