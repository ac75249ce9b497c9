/** A pod whose processes were found, made into one that the agent knows: theirs is the namespace, the rest is discovery's. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Workload } from '../../mesh/records.ts'
import { netnsInode } from '../../sys/netns.ts'
import type { LocalPod } from '../source.ts'
import { addressesAt } from '../verify.ts'
import type { PodProcess } from './processes.ts'

export const CAVEAT = 'found through /proc: connections in the first second or so are not captured'

/** Where container runtimes keep network namespaces, if this is the node's directory, too. */
const NAMESPACES = '/var/run/netns'

export interface FoundPod {
  readonly pod: LocalPod
  /** Inode of its network namespace. */
  readonly netns: bigint
}

/** Undefined while its network does not stand. What was found before and still holds is kept. */
export function foundPod(
  podUid: string,
  workload: Workload,
  processes: readonly PodProcess[],
  before: FoundPod | undefined,
): FoundPod | undefined {
  const process = processOf(processes, workload, before)
  if (!process) return undefined
  const { pid, netns } = process
  const path = before?.netns === netns && isAt(before.pod.netns, netns) ? before.pod.netns : pathOf(process)
  const ips = workload.ips.length > 0 ? workload.ips : addressesOf(path)
  if (ips.length === 0) return undefined
  const pod: LocalPod = {
    uid: podUid,
    namespace: workload.namespace,
    name: workload.name,
    serviceAccount: workload.serviceAccount || undefined,
    ips: ips.toSorted((a, b) => Number(a.includes(':')) - Number(b.includes(':'))),
    annotations: {}, // discovery has taken the pod's own into account
    netns: path,
    pid,
    terminating: workload.details?.terminating ?? false,
    caveat: CAVEAT,
  }
  return { pod, netns }
}

/** One that stands for the pod: the one before, else one in the same namespace, else one where the pod's addresses are. */
function processOf(
  processes: readonly PodProcess[],
  { ips }: Workload,
  before: FoundPod | undefined,
): PodProcess | undefined {
  const same = processes.filter(({ netns }) => netns === before?.netns)
  const [first] = same
  if (first) return same.find(({ pid }) => pid === before?.pod.pid) ?? first
  // A pod may make namespaces of its own below its first one.
  const namespaces = new Map(processes.toReversed().map(process => [process.netns, process]))
  if (namespaces.size < 2 || ips.length === 0) return processes[0]
  return [...namespaces.values()].find(process => {
    const owned = new Set(addressesOf(pathOf(process)))
    return ips.every(ip => owned.has(ip))
  })
}

/** A path that stays when the process ends, where there is one. */
function pathOf({ pid, netns }: PodProcess): string {
  return names().find(path => isAt(path, netns)) ?? `/proc/${pid}/ns/net`
}

function names(): string[] {
  try {
    return readdirSync(NAMESPACES).map(name => join(NAMESPACES, name))
  } catch {
    return [] // there is no such directory
  }
}

function isAt(path: string, netns: bigint): boolean {
  try {
    return netnsInode(path) === netns
  } catch {
    return false
  }
}

function addressesOf(path: string): string[] {
  try {
    return addressesAt(path)
  } catch {
    return [] // gone meanwhile
  }
}
