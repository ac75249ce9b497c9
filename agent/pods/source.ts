/**
 * Where the agent learns which pods are on its node. Four kinds exist: `static` (a file, for the lab), `nri` (the
 * container runtime tells), `proc` (found among the processes) and `auto` (one of the last two); all of them tell the
 * same story through this interface.
 */

/** A pod of this node that has a network namespace of its own. Host-network pods never get here. */
export interface LocalPod {
  /** metadata.uid */
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** Undefined where the source does not know it: discovery tells it then. */
  readonly serviceAccount?: string | undefined
  /** Canonical text, IPv4 before IPv6. */
  readonly ips: readonly string[]
  /** The pod's own, as far as the source knows them; discovery knows them all, and sees them change. */
  readonly annotations: Readonly<Record<string, string>>
  /** A path that opens the pod's network namespace: `/run/netns/…`, `/proc/PID/ns/net`. */
  readonly netns: string
  /** A process that should be in it, and of the pod. */
  readonly pid?: number | undefined
  /** The pod is being deleted. */
  readonly terminating: boolean
  /** What cannot be promised of how the pod was captured, for its status. */
  readonly caveat?: string | undefined
}

/** How long somebody waits until a pod is safe, milliseconds. */
export interface Patience {
  readonly withinMs: number
  /** For as long as nobody knows whether the pod is in the mesh at all: not longer than the above. */
  readonly unknownMs: number
}

/**
 * `safe`: the pod is captured, or known not to be in the mesh. `late`: it is in the mesh and not captured yet.
 * `unknown`: nobody knows yet.
 */
export type Safety = 'safe' | 'late' | 'unknown'

export interface PodEvents {
  /**
   * A pod is there, or something about it changed. The promise ends when the pod is as protected as it can be
   * now (rules stand, or it is not enrolled).
   */
  podSeen(pod: LocalPod): Promise<void>
  /** Waits until nothing of a pod that was told can pass in the clear that should not; gives what it is at the end. */
  podSafe(uid: string, patience: Patience): Promise<Safety>
  /** The pod's sandbox is gone or about to go. What is still open may come to its end for so long. @param drainMs 0 if not given */
  podGone(uid: string, drainMs?: number): Promise<void>
  /** Every pod that is there has been told; what is not among these is gone. May be said again. */
  synced(uids: ReadonlySet<string>): Promise<void>
}

/** What a source says of itself, for the status of the agent. */
export interface SourceStatus {
  readonly kind: 'static' | 'nri' | 'proc'
  /** What it waits for before it can tell of pods; undefined when it does. */
  readonly waitsFor: string | undefined
  /** What cannot be promised with it. */
  readonly caveat?: string | undefined
  readonly [fact: string]: unknown
}

export interface PodSource {
  /** Tells everything until the signal aborts. Owns its retries; rejects only on a setting that can never work. */
  run(events: PodEvents, signal: AbortSignal): Promise<void>
  status(): SourceStatus
}

/** `POD_SOURCE`, read. */
export type PodSourceChoice =
  | { readonly kind: 'static'; readonly file: string }
  | { readonly kind: 'nri' | 'auto'; readonly socket: string }
  | { readonly kind: 'proc' }
