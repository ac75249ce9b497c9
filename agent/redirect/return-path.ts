/** Policy routing for the answers to connections that the agent makes from the client's own address. */
import { existsSync, readFileSync } from 'node:fs'
import { MARK_MASK, RETURN_MARK, RETURN_RULE_PREFERENCE, RETURN_TABLE } from '../ports.ts'
import { inNetns } from '../sys/netns.ts'
import {
  addLocalRoute,
  addMarkRule,
  hasLocalRoute,
  hasMarkRule,
  removeLocalRoute,
  removeMarkRule,
} from '../sys/policy-route.ts'
import type { Family } from './rule.ts'

const markRule = (family: Family) => ({
  family,
  mark: RETURN_MARK,
  mask: MARK_MASK,
  table: RETURN_TABLE,
  preference: RETURN_RULE_PREFERENCE,
})

/** The same as text, each line with its reason. */
export const RETURN_PATH_TEXT: readonly { readonly line: string; readonly reason: string }[] = [
  {
    line: `ip rule add fwmark 0x${RETURN_MARK.toString(16)}/0x${MARK_MASK.toString(16)} pref ${RETURN_RULE_PREFERENCE} lookup ${RETURN_TABLE}`,
    reason:
      "the application's answers to a client that the agent speaks for are looked up in a table of their own",
  },
  {
    line: `ip route add local default dev lo table ${RETURN_TABLE}`,
    reason: 'which delivers them to this pod, where the agent waits for them',
  },
]

/** The address families that the namespace has. */
export function familiesOf(netnsFd: number): Family[] {
  return inNetns(netnsFd, () => existsSync('/proc/thread-self/net/if_inet6')) ? [4, 6] : [4]
}

/** Makes the rules and routes that are missing. Throws `SYSCALL`. */
export function addReturnRoutes(netnsFd: number): void {
  forEachRoutable(netnsFd, family => {
    if (!hasMarkRule(markRule(family))) addMarkRule(markRule(family))
    if (!hasLocalRoute(family, RETURN_TABLE)) addLocalRoute(family, RETURN_TABLE)
  })
}

/** Takes them away. Throws `SYSCALL`. */
export function removeReturnRoutes(netnsFd: number): void {
  forEachRoutable(netnsFd, family => {
    removeMarkRule(markRule(family))
    removeLocalRoute(family, RETURN_TABLE)
  })
}

/** What is missing, one sentence each. Throws `SYSCALL`. */
export function returnRoutesDrift(netnsFd: number): string[] {
  const drift: string[] = []
  forEachRoutable(netnsFd, family => {
    if (!hasMarkRule(markRule(family)))
      drift.push(`IPv${family} routing: the rule for marked answers is missing`)
    if (!hasLocalRoute(family, RETURN_TABLE))
      drift.push(`IPv${family} routing: the local route of table ${RETURN_TABLE} is missing`)
  })
  return drift
}

function forEachRoutable(netnsFd: number, work: (family: Family) => void): void {
  const families = familiesOf(netnsFd)
  inNetns(netnsFd, () => {
    for (const family of families) if (family === 4 || isIpv6OnLoopback()) work(family)
  })
}

/** Without IPv6 on the loopback device the kernel refuses IPv6 routes to it. */
function isIpv6OnLoopback(): boolean {
  try {
    return readFileSync('/proc/sys/net/ipv6/conf/lo/disable_ipv6', 'latin1').trim() !== '1'
  } catch {
    return false // no such setting: no IPv6 there
  }
}
