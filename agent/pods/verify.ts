/**
 * Whether a network namespace is the pod's that it is said to be: it is not the node's or our own, it owns the pod's
 * addresses, and a process that lives in it is of the pod with that uid. Rules in a wrong namespace would be rules in
 * somebody else's.
 */
import { closeSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { canonicalIp, isLoopback } from '../../lib/address.ts'
import { CulvertError } from '../../lib/errors.ts'
import { inNetns, netnsInode, openNetns } from '../sys/netns.ts'
import { cgroupOf, podUidOfProcess } from './cgroup.ts'
import type { LocalPod } from './source.ts'

/** Opens the pod's namespace once it is known to be the pod's; the caller closes it. Throws `NETNS`. */
export function openVerified(pod: LocalPod): number {
  const fd = openNetns(pod.netns)
  try {
    const fault = ownFault(fd) ?? foreignFault(fd, pod)
    if (fault === undefined) return fd
    throw new CulvertError('NETNS', `${pod.netns} is not ${pod.namespace}/${pod.name}'s: ${fault}`)
  } catch (err) {
    closeSync(fd)
    throw err
  }
}

/** What is not as it should be in a namespace that was the pod's before, one sentence each. */
export function identityFaults(netnsFd: number, pod: NamespaceIdentity): string[] {
  const faults: string[] = []
  try {
    if (netnsInode(pod.netns) !== netnsInode(netnsFd)) faults.push(`${pod.netns} is another one now`)
  } catch {
    // A process of the pod may end before the pod does.
    if (!pod.netns.startsWith('/proc/')) faults.push(`${pod.netns} is gone`)
  }
  const owned = new Set(addressesIn(netnsFd))
  for (const ip of pod.ips) if (!owned.has(ip)) faults.push(`it has lost the address ${ip}`)
  return faults
}

/** What tells a pod's namespace from another one. */
export type NamespaceIdentity = Pick<LocalPod, 'netns' | 'ips'>

/** The addresses that a namespace owns, canonical text; without those of the loopback and of one link alone. */
export function addressesIn(netnsFd: number): string[] {
  return inNetns(netnsFd, ownAddresses)
}

/** The same, by a path that opens it. Throws `NETNS`. */
export function addressesAt(netns: string): string[] {
  const fd = openNetns(netns)
  try {
    return addressesIn(fd)
  } finally {
    closeSync(fd)
  }
}

/** The same for the namespace that the thread is in. */
export function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap(addresses => addresses ?? [])
    .filter(({ address }) => !address.includes('%') && !address.startsWith('fe80'))
    .map(({ address }) => canonicalIp(address))
    .filter(ip => !isLoopback(ip))
}

function ownFault(netnsFd: number): string | undefined {
  const inode = netnsInode(netnsFd)
  if (inode === netnsInode('/proc/thread-self/ns/net')) return "it is the agent's own"
  return undefined
}

function foreignFault(netnsFd: number, pod: LocalPod): string | undefined {
  const owned = new Set(addressesIn(netnsFd))
  const missing = pod.ips.filter(ip => !owned.has(ip))
  if (missing.length > 0) return `it does not own ${missing.join(', ')}`
  return pod.pid === undefined ? undefined : processFault(netnsFd, pod.pid, pod.uid)
}

/** A process that has ended meanwhile says nothing, neither for nor against. */
function processFault(netnsFd: number, pid: number, podUid: string): string | undefined {
  const before = inodeOf(pid)
  const uid = podUidOfProcess(cgroupOf(pid) ?? '')
  // Looked at twice, so that both answers are of one process.
  if (before === undefined || uid === undefined || inodeOf(pid) !== before) return undefined
  if (before !== netnsInode(netnsFd)) return `process ${pid}, which is said to be in it, is in another one`
  return uid === podUid ? undefined : `process ${pid} in it is of the pod with uid ${uid}`
}

function inodeOf(pid: number): bigint | undefined {
  try {
    return netnsInode(`/proc/${pid}/ns/net`)
  } catch {
    return undefined
  }
}
