/**
 * Policy routing of the calling thread's namespace: rules that pick a routing table by a packet's mark, and
 * tables that deliver everything to this host (rtnetlink(7)). The same as
 * `ip rule add fwmark M/K pref P lookup T` and `ip route add local default dev lo table T`, without the
 * programs. Call inside `inNetns`. Everything may be repeated; all throw `SYSCALL`.
 */
import { constants } from 'node:os'
import { CulvertError } from '../../lib/errors.ts'
import {
  attribute32,
  decodeAttributes,
  encodeMessage,
  NETLINK_ROUTE,
  netlinkRequest,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  read32,
} from './netlink.ts'
import { AF_INET, AF_INET6 } from './sockaddr.ts'

// linux/rtnetlink.h, linux/fib_rules.h
const RTM_NEWROUTE = 24
const RTM_DELROUTE = 25
const RTM_GETROUTE = 26
const RTM_NEWRULE = 32
const RTM_DELRULE = 33
const RTM_GETRULE = 34
const FR_ACT_TO_TBL = 1
const FRA_PRIORITY = 6
const FRA_FWMARK = 10
const FRA_TABLE = 15
const FRA_FWMASK = 16
const RTA_OIF = 4
const RTA_TABLE = 15
const RTPROT_BOOT = 3
const RT_SCOPE_HOST = 254
const RTN_LOCAL = 2
/** Both `struct fib_rule_hdr` and `struct rtmsg`. */
const BODY_BYTES = 12
/** The loopback device is the first of every namespace. */
const LOOPBACK_INDEX = 1

export interface MarkRule {
  readonly family: 4 | 6
  readonly mark: number
  readonly mask: number
  /** 1..255 */
  readonly table: number
  readonly preference: number
}

/** Makes packets of this mark use the table. */
export function addMarkRule(rule: MarkRule): void {
  const flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
  request(ruleMessage(RTM_NEWRULE, flags, rule), `add ${ruleText(rule)}`, constants.errno.EEXIST)
}

/** Takes the rule away, as often as it is there. */
export function removeMarkRule(rule: MarkRule): void {
  while (hasMarkRule(rule)) {
    const message = ruleMessage(RTM_DELRULE, NLM_F_REQUEST | NLM_F_ACK, rule)
    request(message, `delete ${ruleText(rule)}`, constants.errno.ENOENT)
  }
}

/** Reports whether the rule is there. */
export function hasMarkRule(rule: MarkRule): boolean {
  const message = encodeMessage(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, body(rule.family))
  return netlinkRequest(NETLINK_ROUTE, message, 'list policy routing rules').some(({ type, body }) => {
    const attributes = decodeAttributes(body, BODY_BYTES)
    return (
      type === RTM_NEWRULE &&
      read32(attributes, FRA_PRIORITY) === rule.preference &&
      read32(attributes, FRA_FWMARK) === rule.mark &&
      read32(attributes, FRA_FWMASK) === rule.mask &&
      (read32(attributes, FRA_TABLE) ?? body[4]) === rule.table
    )
  })
}

/** Makes the table deliver every address to this host. */
export function addLocalRoute(family: 4 | 6, table: number): void {
  const flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
  const tried = `add local default route to table ${table} (IPv${family})`
  request(routeMessage(RTM_NEWROUTE, flags, family, table), tried, constants.errno.EEXIST)
}

/** Takes that route away. */
export function removeLocalRoute(family: 4 | 6, table: number): void {
  const message = routeMessage(RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK, family, table)
  request(message, `delete local default route from table ${table} (IPv${family})`, constants.errno.ESRCH)
}

/** Reports whether the table has that route. */
export function hasLocalRoute(family: 4 | 6, table: number): boolean {
  const message = encodeMessage(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, body(family))
  return netlinkRequest(NETLINK_ROUTE, message, 'list routes').some(({ type, body }) => {
    const attributes = decodeAttributes(body, BODY_BYTES)
    return (
      type === RTM_NEWROUTE &&
      body[1] === 0 &&
      body[7] === RTN_LOCAL &&
      (read32(attributes, RTA_TABLE) ?? body[4]) === table &&
      read32(attributes, RTA_OIF) === LOOPBACK_INDEX
    )
  })
}

function ruleMessage(type: number, flags: number, rule: MarkRule): Uint8Array {
  const header = body(rule.family)
  header[4] = rule.table
  header[7] = FR_ACT_TO_TBL
  return encodeMessage(type, flags, header, [
    attribute32(FRA_PRIORITY, rule.preference),
    attribute32(FRA_FWMARK, rule.mark),
    attribute32(FRA_FWMASK, rule.mask),
    attribute32(FRA_TABLE, rule.table),
  ])
}

function routeMessage(type: number, flags: number, family: 4 | 6, table: number): Uint8Array {
  const header = body(family)
  header[4] = table
  header[5] = RTPROT_BOOT
  header[6] = RT_SCOPE_HOST
  header[7] = RTN_LOCAL
  return encodeMessage(type, flags, header, [
    attribute32(RTA_TABLE, table),
    attribute32(RTA_OIF, LOOPBACK_INDEX),
  ])
}

function body(family: 4 | 6): Uint8Array {
  const header = new Uint8Array(BODY_BYTES)
  header[0] = family === 6 ? AF_INET6 : AF_INET
  return header
}

function request(message: Uint8Array, tried: string, harmless: number): void {
  try {
    netlinkRequest(NETLINK_ROUTE, message, tried)
  } catch (err) {
    const cause = err instanceof CulvertError ? err.cause : undefined
    if (!(cause instanceof Error && 'errno' in cause && cause.errno === harmless)) throw err
  }
}

function ruleText(rule: MarkRule): string {
  const mark = `0x${rule.mark.toString(16)}/0x${rule.mask.toString(16)}`
  return `policy routing rule fwmark ${mark} lookup ${rule.table} (IPv${rule.family})`
}
