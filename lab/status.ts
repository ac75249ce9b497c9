/** What `lab status` says; the supervisor makes it, the command and the programs on top of the lab read it. */
import type { ProcessRef } from './processes.ts'

export interface PartStatus {
  /** Absent while it does not run. */
  readonly pid?: number
  readonly restarts: number
  /** How it ended last. */
  readonly lastExit?: string
}

export interface NodeStatus {
  readonly name: string
  readonly netns: string
  readonly ips: readonly string[]
  readonly podCidrs: readonly string[]
  /** Absent when the node's data plane is someone else's. */
  readonly agent?: PartStatus & {
    readonly answers: boolean
    /** Earlier agents that are still finishing. */
    readonly draining: number
  }
}

/** A pod without what its agent says of it. */
export interface PodPlace {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly node: string
  readonly netns: string
  readonly ips: readonly string[]
  readonly serviceAccount: string
  readonly phase: string
  readonly ready: boolean
  readonly terminating: boolean
}

export interface PodStatus extends PodPlace {
  /** What the agent says: `enrolled`, `not-enrolled`, `pending`, …; `host-network` and `no-agent` when there is none to ask. */
  readonly mesh: string
  readonly meshDetail: string
  readonly containers: readonly (PartStatus & { readonly name: string })[]
}

export interface ServiceStatus {
  readonly namespace: string
  readonly name: string
  readonly clusterIPs: readonly string[]
  readonly ports: readonly string[]
  /** Addresses that are ready. */
  readonly endpoints: readonly string[]
}

export interface LabStatus {
  readonly name: string
  readonly run: string
  readonly file: string
  readonly rootless: boolean
  readonly supervisor: ProcessRef
  /** RFC 3339. */
  readonly startedAt: string
  readonly trustDomain: string
  readonly caServer: PartStatus
  readonly nodes: readonly NodeStatus[]
  readonly pods: readonly PodStatus[]
  readonly services: readonly ServiceStatus[]
  /** Why the lab file as it is now is not followed. */
  readonly fileProblem?: string
  readonly warnings: readonly string[]
}
