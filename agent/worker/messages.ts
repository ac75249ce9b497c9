/**
 * What passes between the main thread, which knows the mesh, and the data-plane threads, which move bytes.
 * Everything here is structured-cloneable plain data. Descriptors are numbers: threads share the process's table.
 */
import type { LogLevel } from '../../lib/log-level.ts'
import type { CarriedReason, PlaintextReason, Reason, RefusedReason } from '../../lib/reasons.ts'
import type { RefusalCount } from './refusals.ts'
import type { ResponseFlag } from './response-flags.ts'

/** The listening sockets of one pod that one thread serves. Whoever serves one closes it. */
export interface PodListeners {
  readonly outbound: number
  readonly inbound: number
  readonly hbone: number
}

/** A pod as the data plane sees it. */
export interface PodPlane {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** Empty while nobody has told. */
  readonly serviceAccount: string
  /** SPIFFE ID; empty without a service account. */
  readonly identity: string
  readonly ips: readonly string[]
  /** Open descriptor of the pod's network namespace; the main thread owns it and keeps it open until `pod-removed`. */
  readonly netnsFd: number
}

/** Key and certificate of a pod. The key is in memory only: it crosses threads, never a disk, a log or an argument list. */
export interface PodCertificate {
  /** PKCS #8 PEM. */
  readonly key: string
  /** PEM, leaf first, without the root. */
  readonly chain: string
  /** PEM, the roots that peers are verified against. */
  readonly roots: string
  readonly notAfterMs: number
}

/** Who is at one end, for logs and metrics. Absent fields are unknown. */
export interface PeerInfo {
  readonly workload?: string | undefined
  readonly namespace?: string | undefined
  readonly identity?: string | undefined
  readonly node?: string | undefined
  readonly cluster?: string | undefined
}

export interface ServiceInfo {
  readonly namespace: string
  readonly name: string
  readonly hostname: string
}

/** One place a connection may go. */
export interface Endpoint {
  readonly ip: string
  /** The port on the endpoint, after the service's mapping. */
  readonly port: number
  readonly weight: number
  readonly peer: PeerInfo
  readonly via:
    | { readonly kind: 'hbone'; readonly port: number; readonly identities: readonly string[] }
    | { readonly kind: 'tcp'; readonly reason: PlaintextReason }
}

/** Where a captured outbound connection goes. A thread keeps it per (pod, destination) until told `invalidate`. */
export type RouteDecision =
  | {
      readonly kind: 'forward'
      readonly endpoints: readonly Endpoint[]
      /** They are to be tried as they stand, and not at random by their weights. */
      readonly inOrder?: boolean
      readonly service?: ServiceInfo | undefined
    }
  | {
      readonly kind: 'refuse'
      readonly reason: RefusedReason
      readonly detail: string
      readonly peer?: PeerInfo | undefined
      readonly service?: ServiceInfo | undefined
    }

/** Whether an inbound connection may come in, and under which word. */
export type AdmitDecision =
  | {
      readonly kind: 'admit'
      readonly reason: CarriedReason | PlaintextReason
      readonly peer: PeerInfo
      /** Says nothing yet of any connection: each is to be asked about with its source port. */
      readonly isForEach?: true
      /** The caller has gone already. If nothing came of it, nothing is to be carried; if something did, this holds. */
      readonly otherwise?: AdmitDecision
    }
  | {
      readonly kind: 'refuse'
      readonly reason: RefusedReason
      readonly detail: string
      readonly peer: PeerInfo
    }

export interface RouteQuestion {
  readonly podUid: string
  readonly ip: string
  readonly port: number
}

export interface AdmitQuestion {
  readonly podUid: string
  readonly sourceIp: string
  /** Where the answer is for one connection alone. */
  readonly sourcePort?: number
  /** Verified SPIFFE ID; undefined for plaintext. */
  readonly identity: string | undefined
  readonly ip: string
  readonly port: number
}

/** Asked by the data plane, answered by the mesh. In a worker thread this is a message and its reply. */
export interface Control {
  route(question: RouteQuestion): Promise<RouteDecision>
  admit(question: AdmitQuestion): Promise<AdmitDecision>
}

/** One connection from its beginning to its end, as the access log and the metrics speak of it. */
export interface ConnectionRecord {
  readonly id: number
  readonly podUid: string
  readonly direction: 'outbound' | 'inbound'
  readonly reason: Reason
  readonly source: PeerInfo & { readonly ip: string; readonly port: number }
  readonly destination: PeerInfo & { readonly ip: string; readonly port: number }
  /** `ip:port` of the tunnel's far end. */
  readonly hboneAddress?: string | undefined
  readonly service?: ServiceInfo | undefined
  /** Application bytes sent to and received from the destination. */
  readonly bytesSent: number
  readonly bytesReceived: number
  readonly openedAtMs: number
  /** Set once it has ended. */
  readonly durationMs?: number | undefined
  /** Why it failed; absent after an orderly end. */
  readonly error?: string | undefined
  /** Node's or HTTP/2's name of the failure: ECONNREFUSED, ETIMEDOUT, CONNECT_ERROR, … */
  readonly errorCode?: string | undefined
}

/** What connections are counted under together: two workloads, and what is the same for all of those. */
export interface TrafficLabels {
  readonly direction: ConnectionRecord['direction']
  readonly source: TrafficEnd
  readonly destination: TrafficEnd
  readonly service?: ServiceInfo | undefined
  readonly isMutual: boolean
  readonly flag: ResponseFlag
  /** Of all those for which there was no room: nobody is named. */
  readonly isOther: boolean
}

/** The identity is there where it was proved to the other end alone. */
export type TrafficEnd = Pick<PeerInfo, 'workload' | 'namespace' | 'identity' | 'cluster'>

/** What has become of one series since the last word of it. */
export interface TrafficChange {
  /** Stands for the series in this thread. */
  readonly id: number
  /** The first time. */
  readonly labels?: TrafficLabels | undefined
  readonly opened: number
  readonly closed: number
  readonly failed: number
  /** Application bytes; the server's words for it, whichever side reports. */
  readonly received: number
  readonly sent: number
  /** Those open now: a level, where the others are increments. */
  readonly open: number
}

/** Connections that ended, counted under a word. */
export interface EndCount<W> {
  readonly direction: ConnectionRecord['direction']
  readonly word: W
  readonly count: number
}

/** What a thread has counted of connections since its last report. */
export interface TrafficReport {
  readonly changes: readonly TrafficChange[]
  readonly reasons: readonly EndCount<Reason>[]
  /** Failures by their `errorCode`. */
  readonly errors: readonly EndCount<string | undefined>[]
  /** Series of which nothing is open and nothing will be heard under this number. */
  readonly forgotten: readonly number[]
}

/** How hard a pod or thread is being shut. */
export interface DrainRequest {
  /** Open connections may live this long; 0 cuts them now. */
  readonly deadlineMs: number
}

export type ToWorker =
  | { readonly type: 'pod'; readonly pod: PodPlane }
  | { readonly type: 'listen'; readonly podUid: string; readonly listeners: PodListeners }
  | { readonly type: 'certificate'; readonly podUid: string; readonly certificate: PodCertificate }
  /** The pod is terminating: peers' sessions get a GOAWAY, so that new connections go elsewhere; nothing is closed. */
  | { readonly type: 'goaway'; readonly podUid: string }
  /** GOAWAY on every session of the pod, inbound and outbound, then drain. Answered by `pod-removed`. */
  | {
      readonly type: 'remove-pod'
      readonly id: number
      readonly podUid: string
      readonly drain: DrainRequest
    }
  /** Forget kept decisions: of one pod, or of all. */
  | { readonly type: 'invalidate'; readonly podUid?: string | undefined }
  | { readonly type: 'route-answer'; readonly id: number; readonly decision: RouteDecision }
  | { readonly type: 'admit-answer'; readonly id: number; readonly decision: AdmitDecision }
  | { readonly type: 'list-connections'; readonly id: number }
  /** Reset what comes to the pod in plaintext against its being strict; answered by `plaintext-cut`. */
  | { readonly type: 'cut-plaintext'; readonly id: number; readonly podUid: string }
  /** Stop accepting, GOAWAY, drain; answered by `drained`. */
  | { readonly type: 'drain'; readonly drain: DrainRequest }

/** Which lines of the access log are written, and what stands on each of them. */
export interface AccessLogSettings {
  readonly level: LogLevel
  readonly fields: Readonly<Record<string, string>>
}

export type ToThread = ToWorker | { readonly type: 'log-level'; readonly level: LogLevel }

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'route'; readonly id: number; readonly question: RouteQuestion }
  | { readonly type: 'admit'; readonly id: number; readonly question: AdmitQuestion }
  | { readonly type: 'traffic'; readonly report: TrafficReport }
  | { readonly type: 'refusals'; readonly refusals: readonly RefusalCount[] }
  /** Lines of the access log, rendered: each of these is some whole lines for one write. */
  | { readonly type: 'access-log'; readonly writes: readonly string[] }
  /** Several of these, in order: each message wakes the main thread. */
  | { readonly type: 'several'; readonly messages: readonly FromWorker[] }
  | { readonly type: 'connections'; readonly id: number; readonly records: ConnectionRecord[] }
  | { readonly type: 'pod-removed'; readonly id: number; readonly cut: ConnectionRecord[] }
  | { readonly type: 'plaintext-cut'; readonly id: number; readonly cut: ConnectionRecord[] }
  | { readonly type: 'drained'; readonly cut: ConnectionRecord[] }
  | {
      readonly type: 'log'
      readonly level: 'debug' | 'info' | 'warn' | 'error'
      readonly message: string
      readonly fields: Record<string, unknown>
    }
  | {
      readonly type: 'counters'
      /** Levels, and increments of what ends in `_total`; names may carry labels: `name_total{label="value"}`. */
      readonly counters: Record<string, number>
      /** Connections made out of each pod's namespace so far, by pod uid. */
      readonly dialled: Record<string, number>
    }
