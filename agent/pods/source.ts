/**
 * Where the agent learns which pods are on its node. Three kinds exist: `static` (a file, for the lab), `nri`
 * and `proc`; all of them tell the same story through this interface.
 */

/** A pod of this node that has a network namespace of its own. Host-network pods never get here. */
export interface LocalPod {
  /** metadata.uid */
  readonly uid: string
  readonly namespace: string
  readonly name: string
  readonly serviceAccount: string
  /** Canonical text, IPv4 before IPv6. */
  readonly ips: readonly string[]
  readonly annotations: Readonly<Record<string, string>>
  /** A path that opens the pod's network namespace: `/run/netns/…`, `/proc/PID/ns/net`. */
  readonly netns: string
  /** The pod is being deleted. */
  readonly terminating: boolean
}

export interface PodEvents {
  /**
   * A pod is there, or something about it changed. The promise ends when the pod is as protected as it can be
   * now (rules stand, or it is not enrolled); sources whose runtime waits for an answer wait for it.
   */
  podSeen(pod: LocalPod): Promise<void>
  /** The pod's sandbox is gone or about to go. */
  podGone(uid: string): Promise<void>
  /** Every pod that was there at the start has been told; what was not told is gone. */
  synced(uids: ReadonlySet<string>): Promise<void>
}

export interface PodSource {
  readonly kind: 'static' | 'nri' | 'proc'
  /** Tells everything until the signal aborts. Owns its retries; rejects only on a setting that can never work. */
  run(events: PodEvents, signal: AbortSignal): Promise<void>
}
