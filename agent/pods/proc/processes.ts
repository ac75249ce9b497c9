/**
 * The processes of the node's pods, as far as they have a network namespace of their own: `/proc`, looked at again and
 * again. What was read of a process is kept, so that a look costs one listing of the directory, and a little for each
 * process that is new. A process is not what it will be when it begins: the runtime moves it into its groups and
 * namespaces first. So one that is no pod's is read a few times before it is believed.
 */
import { readdirSync } from 'node:fs'
import { netnsInode } from '../../sys/netns.ts'
import { cgroupOf, podUidOfProcess } from '../cgroup.ts'

export interface PodProcess {
  readonly pid: number
  /** Inode of its network namespace. */
  readonly netns: bigint
}

interface Seen {
  readonly looks: number
  /** Undefined: none of a pod's, or in the node's own network. */
  readonly process: (PodProcess & { readonly podUid: string }) | undefined
}

/** A second apart when nothing is expected: a process that begins takes less. */
const BELIEVED_AFTER_LOOKS = 3

export class PodProcesses {
  /** Network namespaces that are no pod's. */
  readonly #others: ReadonlySet<bigint | undefined>
  #seen = new Map<number, Seen>()

  /** @param home inode of the node's own network namespace, where it is known: what is in it is in no pod's */
  constructor(home: bigint | undefined) {
    this.#others = new Set([home, netnsInode('/proc/self/ns/net')])
  }

  /** What is there now, by the uid of the pod, processes in the order of their numbers. */
  look(): Map<string, PodProcess[]> {
    const seen = new Map<number, Seen>()
    const pods = new Map<string, PodProcess[]>()
    for (const entry of readdirSync('/proc')) {
      const pid = Number(entry)
      if (!Number.isInteger(pid)) continue
      const before = this.#seen.get(pid)
      const now =
        before && (before.process !== undefined || before.looks >= BELIEVED_AFTER_LOOKS)
          ? before
          : { looks: (before?.looks ?? 0) + 1, process: this.#read(pid) }
      seen.set(pid, now)
      if (!now.process) continue
      const processes = pods.get(now.process.podUid)
      if (processes) processes.push(now.process)
      else pods.set(now.process.podUid, [now.process])
    }
    this.#seen = seen
    return pods
  }

  #read(pid: number): Seen['process'] {
    const podUid = podUidOfProcess(cgroupOf(pid) ?? '')
    if (podUid === undefined) return undefined
    try {
      const netns = netnsInode(`/proc/${pid}/ns/net`)
      return this.#others.has(netns) ? undefined : { pid, netns, podUid }
    } catch {
      return undefined // it has ended
    }
  }
}
