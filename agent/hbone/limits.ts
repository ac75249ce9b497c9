/**
 * Every limit of the tunnel, each with its reason. Peers are authenticated, but a compromised node is one too:
 * nothing here is unbounded. What ends a session or refuses a stream is named in the error and in the metrics by the
 * limit's name here (`LimitName`).
 */
import type { SessionObserver } from './session-end.ts'

export interface SessionOptions {
  /** What the peer may send on one stream before the application has taken it, bytes. */
  readonly streamWindow: number
  /** The same for all streams of a session; four times the stream's, so that a few stalled streams do not stop the rest. */
  readonly connectionWindow: number
  /** Largest frame that this side accepts, bytes. */
  readonly maxFrame: number
  /** Largest DATA frame that this side makes, bytes: more only delays the frames of other streams. */
  readonly sendFrame: number
  /** Bytes handed to TLS and not yet written by the kernel above which streams wait. */
  readonly sendBuffer: number
  /** Headers of a message, counted as RFC 9113 §6.5.2 does. */
  readonly maxHeaderList: number
  /** Streams that a peer may have open at once (server side). */
  readonly maxConcurrentStreams: number
  /** Silence after which a PING is sent, ms. */
  readonly pingIntervalMs: number
  /** Silence after that PING which ends the session, ms. */
  readonly pingTimeoutMs: number
  /** From the handshake to the peer's SETTINGS and its acknowledgement of ours, ms (RFC 9113 §6.5.3). */
  readonly prefaceTimeoutMs: number
  /** Hears of what ends and what is refused, for who counts it. */
  readonly observer?: SessionObserver | undefined
}

/** What a peer can go over: an option of the session, or one of the constants below. */
export type LimitName =
  | 'streamWindow'
  | 'connectionWindow'
  | 'maxFrame'
  | 'maxHeaderList'
  | 'maxConcurrentStreams'
  | 'pingTimeoutMs'
  | 'prefaceTimeoutMs'
  | 'MAX_CONTROL_PAYLOAD'
  | 'MAX_HEADER_BLOCK'
  | 'MAX_CONTINUATIONS'
  | 'MAX_UNREAD_ANSWERS'
  | 'CONTROL_BURST'

export const DEFAULT_SESSION: SessionOptions = {
  streamWindow: 4 * 1024 * 1024,
  connectionWindow: 16 * 1024 * 1024,
  maxFrame: 1024 * 1024,
  sendFrame: 256 * 1024,
  sendBuffer: 1024 * 1024,
  maxHeaderList: 64 * 1024,
  maxConcurrentStreams: 200,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
  prefaceTimeoutMs: 10_000,
}

/** Frames that are neither DATA nor HEADERS are small by nature; a GOAWAY's debug data is the largest of them. */
export const MAX_CONTROL_PAYLOAD = 16_384
/** One header block over all its CONTINUATION frames (CVE-2024-27316: an endless block). */
export const MAX_HEADER_BLOCK = 128 * 1024
/** Frames one header block may be cut into: honest peers need one or two. */
export const MAX_CONTINUATIONS = 32
/** Bytes of answers (acknowledgements, refusals, resets) that may wait for a peer which does not read. */
export const MAX_UNREAD_ANSWERS = 1024 * 1024
/** An increment that no honest peer sends: it makes us cut what we have into as many frames as it likes. */
export const SMALL_WINDOW_UPDATE = 1024
/**
 * Control frames (PING, SETTINGS, empty DATA, PRIORITY, resets of streams, requests that are refused) a peer may send per second on average
 * without moving any application byte, and in one burst. Ten thousand aborted connections in a burst are honest.
 */
export const CONTROL_RATE_PER_SECOND = 5_000
export const CONTROL_BURST = 50_000
/** A stream that has carried so much makes its session one that small requests should not have to share. */
export const BULK_BYTES = 1024 * 1024
/** How long after that the session counts as such, ms: longer than a busy stream needs for as much again. */
export const BULK_MS = 2000
/** How long the last bytes of a session may take to leave, ms. */
export const LINGER_MS = 500
