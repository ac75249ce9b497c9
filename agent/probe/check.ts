/**
 * Tries on a node what the agent does there, in a network namespace that is thrown away: each of its calls, and its whole
 * rule set in all modes. What is only looked at, and not tried, says so.
 */
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { errorText } from '../../lib/errors.ts'
import type { Finding, NodeReport } from '../../lib/finding.ts'
import { adoptFrom, killHolder, startHolder } from '../pods/holder.ts'
import { MARK, PORT } from '../ports.ts'
import { applyRedirect, inspectRedirect, removeRedirect } from '../redirect/apply.ts'
import { Iptables } from '../redirect/iptables.ts'
import { familiesOf } from '../redirect/return-path.ts'
import { programPath, startChild } from '../sys/children.ts'
import { inNetns, netnsInode, newNetns } from '../sys/netns.ts'
import { connectSocket, listenTcp } from '../sys/socket.ts'
import { checkNeighbours } from './neighbours.ts'
import { checkRuntime } from './runtime.ts'

/** Both locks and every kind of exclusion: every match and target that Culvert has. */
const EVERYTHING = {
  strictInbound: true,
  requireOutbound: true,
  excludeInboundPorts: [9000],
  excludeOutboundPorts: [9001],
  excludeOutboundCidrs: ['192.0.2.0/24', '2001:db8::/32'],
}
const SOMEBODY_ELSE = { 4: '192.0.2.1', 6: '2001:db8::1' } as const

export async function checkNode(node: string): Promise<NodeReport> {
  const findings: Finding[] = [ok('kernel', `Linux ${release()}`)]
  const attempt = async (id: string, text: string, hint: string, work: () => Promise<string> | string) => {
    try {
      const detail = await work()
      findings.push(ok(id, detail === '' ? text : `${text}: ${detail}`))
      return true
    } catch (err) {
      findings.push({ id, state: 'fail', text: `${text}: ${errorText(err)}`, hint })
      return false
    }
  }
  let netns: number | undefined
  await attempt(
    'netns',
    'network namespaces can be made and entered',
    'the agent needs CAP_SYS_ADMIN: is it taken away by a policy?',
    async () => {
      netns = newNetns()
      await bringUpLoopback(netns)
      return ''
    },
  )
  if (netns !== undefined) {
    await tryInside(netns, attempt)
    findings.push(...(await abilities(netns)))
    closeSync(netns)
  }
  findings.push(ptraceScope(), ...(await checkRuntime()), ...(await checkNeighbours()))
  return { node, findings }
}

type Attempt = (
  id: string,
  text: string,
  hint: string,
  work: () => Promise<string> | string,
) => Promise<boolean>

async function tryInside(netns: number, attempt: Attempt): Promise<void> {
  const families = familiesOf(netns)
  const hasRules = await attempt(
    'iptables',
    'packet rules can be made',
    'the kernel needs nf_tables or ip_tables: modprobe nf_tables nft_compat nf_nat, or ip_tables iptable_nat iptable_mangle',
    async () => {
      const { variant } = await Iptables.detect(netns)
      return `iptables-${variant}, IPv${families.join(' and IPv')}`
    },
  )
  if (hasRules)
    await attempt(
      'rules',
      'the whole rule set stands, with its return path',
      'a kernel module is missing: modprobe xt_REDIRECT xt_connmark xt_mark xt_tcpudp xt_comment xt_addrtype xt_conntrack',
      async () => {
        await applyRedirect(netns, EVERYTHING)
        const { drift } = await inspectRedirect(netns, EVERYTHING)
        if (drift.length > 0) throw new Error(`it is not what was asked for: ${drift.join('; ')}`)
        await removeRedirect(netns)
        return ''
      },
    )
  await attempt(
    'transparent',
    "connections can be made from the client's own address",
    'the kernel needs IP_TRANSPARENT, and the agent CAP_NET_ADMIN',
    () => {
      for (const family of families)
        closeSync(
          inNetns(netns, () => connectSocket({ family, mark: MARK, sourceIp: SOMEBODY_ELSE[family] })),
        )
      return ''
    },
  )
  await attempt(
    'takeover',
    'listening sockets can be taken over from another process',
    'pidfd_getfd(2) needs Linux 5.6, CAP_SYS_PTRACE and kernel.yama.ptrace_scope below 3: without it, connections that wait while an agent restarts are lost',
    () => takeOver(netns),
  )
}

/** Nothing when there are no rules at all, which was said already. */
async function abilities(netns: number): Promise<Finding[]> {
  const iptables = await Iptables.detect(netns).catch(() => undefined)
  if (!iptables) return []
  const listeners: Finding = iptables.seesListeners
    ? ok('listeners', 'a port that nobody listens on is refused by the kernel')
    : {
        id: 'listeners',
        state: 'warn',
        text: 'there is no match for sockets: to a TCP probe every port of an enrolled pod will seem open',
        hint: 'modprobe xt_socket; or let pods have HTTP, gRPC or exec probes',
      }
  const zones: Finding = iptables.hasZones
    ? ok('zones', "the agent's connections to applications are tracked apart from the clients' own")
    : {
        id: 'zones',
        state: 'warn',
        text: 'connection tracking has no zones: of the clients outside the mesh that have hundreds of connections to one port, one or other will wait for another in vain',
        hint: 'modprobe xt_CT',
      }
  return [listeners, zones]
}

function takeOver(netns: number): string {
  const listen = (port: number) => inNetns(netns, () => listenTcp({ port, mark: MARK, transparent: true }))
  const listeners = {
    outbound: listen(PORT.outbound),
    inbound: listen(PORT.inbound),
    hbone: listen(PORT.hbone),
  }
  const holder = startHolder(listeners, () => undefined)
  try {
    const adoption = adoptFrom(holder, netnsInode(netns))
    if (adoption.kind !== 'adopted') throw new Error(adoption.why)
    Object.values(adoption.listeners).forEach(closeSync)
    return ''
  } finally {
    Object.values(listeners).forEach(closeSync)
    killHolder(holder)
  }
}

async function bringUpLoopback(netns: number): Promise<void> {
  const path = programPath('ip')
  if (path === undefined) throw new Error('ip is not installed')
  const nothing = openSync('/dev/null', 'r+')
  const ended = Promise.withResolvers<number>()
  inNetns(netns, () =>
    startChild({
      path,
      argv: ['ip', 'link', 'set', 'lo', 'up'],
      env: {},
      fds: [nothing, nothing, nothing],
      onExit: ended.resolve,
    }),
  )
  const status = await ended.promise
  closeSync(nothing)
  if (status !== 0) throw new Error(`ip link set lo up: ended with ${status}`)
}

/** Looked at, because a takeover between our own two processes may work where one between two pods' does not. */
function ptraceScope(): Finding {
  const path = '/proc/sys/kernel/yama/ptrace_scope'
  const scope = existsSync(path) ? readFileSync(path, 'latin1').trim() : '0'
  return scope === '3'
    ? {
        id: 'yama',
        state: 'fail',
        text: 'kernel.yama.ptrace_scope is 3: nobody may look into another process',
        hint: 'sysctl kernel.yama.ptrace_scope=2 and a reboot: 3 cannot be taken back before',
      }
    : ok('yama', `kernel.yama.ptrace_scope is ${scope}`)
}

function ok(id: string, text: string): Finding {
  return { id, state: 'ok', text }
}
