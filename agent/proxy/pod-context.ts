/** What the parts of one pod's proxy share. Handed in; nothing here reads configuration. */
import type { Cancellation } from '../../lib/cancel.ts'
import type { SessionOptions } from '../hbone/limits.ts'
import { DEFAULT_POOL, type HbonePool, type PoolOptions } from '../hbone/pool.ts'
import type { TcpSocket } from '../io/tcp.ts'
import type { TlsContext } from '../sys/tls-context.ts'
import type { AdmitDecision, AdmitQuestion, PodPlane, RouteDecision } from '../worker/messages.ts'
import type { ConnectionBook } from './connection.ts'
import type { DialTarget } from './dial.ts'

export interface ProxyOptions {
  readonly session: SessionOptions
  readonly pool: PoolOptions
  /** TCP connect, ms. */
  readonly connectTimeoutMs: number
  /** TLS handshake, either side, ms. */
  readonly handshakeTimeoutMs: number
  /** From CONNECT to its answer, ms: longer than the peer's own connect timeout. */
  readonly responseTimeoutMs: number
  /** An endpoint that is silent for so long is given up on when there is another, ms. */
  readonly patienceMs: number
  /** How long one direction may be silent once the other has ended, ms. */
  readonly halfClosedMs: number
  /** A captured connection waits this long for its pod's first certificate, ms. */
  readonly certificateWaitMs: number
  /**
   * Descriptors that the connections of one pod may hold on one thread, one each, and two where it is passed on in the
   * clear: a pod must not use up those of all the others.
   */
  readonly maxConnections: number
  readonly clusterId: string
}

export const DEFAULT_PROXY: Omit<ProxyOptions, 'session' | 'clusterId'> = {
  pool: DEFAULT_POOL,
  connectTimeoutMs: 10_000,
  handshakeTimeoutMs: 10_000,
  responseTimeoutMs: 15_000,
  // What kube-proxy grants connections in CLOSE_WAIT (--conntrack-tcp-timeout-close-wait).
  halfClosedMs: 3_600_000,
  patienceMs: 3000, // a lost first packet or two, and an agent that is started again
  certificateWaitMs: 10_000,
  // More than the ephemeral ports that one address has toward another.
  maxConnections: 32_768,
}

/** How a connection over `maxConnections` ends. */
export const TOO_MANY = {
  reason: 'unreachable',
  error: 'the pod has too many connections open',
  errorCode: 'TOO_MANY_CONNECTIONS',
} as const

export type LogLine = (
  level: 'debug' | 'info' | 'warn' | 'error',
  message: string,
  fields: Record<string, unknown>,
) => void

export interface PodContext {
  readonly pod: PodPlane
  readonly trustDomain: string
  readonly options: ProxyOptions
  readonly book: ConnectionBook
  readonly pool: HbonePool
  readonly log: LogLine
  /** A connection out of the pod's namespace, counted: what the rules saw under our mark is compared with it. */
  dial(target: DialTarget, signal: Cancellation): Promise<TcpSocket>
  /** Kept answers, asked for when there is none. */
  route(ip: string, port: number): Promise<RouteDecision>
  /** With a source port, the answer is for that connection alone and not kept. */
  admit(question: Omit<AdmitQuestion, 'podUid'>): Promise<AdmitDecision>
  /** The present context, or a wait for the first one. Rejects when there is none in time. */
  tlsContext(signal: Cancellation): Promise<TlsContext>
}
