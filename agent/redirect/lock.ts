/** What closes a strict pod, and one that requires mTLS of its calls, beside the capture. */
import { PORT } from '../ports.ts'
import {
  AGENT_MARK,
  count,
  jump,
  LISTENER,
  outboundExclusions,
  SYN,
  TCP,
  type Abilities,
  type Add,
  type Family,
  type Policy,
} from './rule.ts'
import type { RedirectSettings } from './settings.ts'

/**
 * Strict a second time, without the capture: what was captured is addressed to the agent by now, so any other
 * SYN came around it.
 */
export function lockInbound(
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

export function lockOutbound(add: Add, settings: RedirectSettings, family: Family): Policy {
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
