/** What may be set of the tunnel: windows, timeouts, pools. Names are ztunnel's where it has one. */
import type { Settings } from '../lib/settings.ts'
import { DEFAULT_SESSION, type SessionOptions } from './hbone/limits.ts'
import { DEFAULT_POOL, type PoolOptions } from './hbone/pool.ts'
import { DEFAULT_PROXY, type ProxyOptions } from './proxy/pod-context.ts'

export type TunnelConfig = Omit<ProxyOptions, 'clusterId' | 'maxConnections'>

/** Name, default and meaning of each, for `--help`. */
export const TUNNEL_HELP: readonly (readonly [name: string, fallback: string, meaning: string])[] = [
  ['HTTP2_STREAM_WINDOW_SIZE', '4194304', 'bytes'],
  ['HTTP2_CONNECTION_WINDOW_SIZE', '16777216', 'bytes'],
  ['HTTP2_FRAME_SIZE', '1048576', 'largest frame taken, bytes'],
  ['HTTP2_PREFACE_TIMEOUT', '10s', "from a handshake to the peer's SETTINGS and their acknowledgement"],
  ['HTTP2_PING_INTERVAL', '10s', 'silence after which a peer is asked whether it is there'],
  ['HTTP2_PING_TIMEOUT', '20s', 'how long it may take to say so'],
  ['CONNECT_TIMEOUT', '10s', 'TCP connections that the agent makes'],
  ['TLS_HANDSHAKE_TIMEOUT', '10s', 'on either side'],
  [
    'CONNECT_RESPONSE_TIMEOUT',
    '15s',
    "from CONNECT to the peer's answer; longer than its own CONNECT_TIMEOUT",
  ],
  ['ENDPOINT_PATIENCE', '3s', 'an endpoint may be silent as long when there is another to try'],
  ['HALF_CLOSED_TIMEOUT', '1h', 'silence of one direction once the other has ended'],
  ['CERTIFICATE_WAIT', '10s', "how long a captured connection waits for its pod's first certificate"],
  ['POOL_MAX_STREAMS_PER_CONNECTION', '100', 'connections in one session'],
  ['POOL_UNUSED_RELEASE_TIMEOUT', '5m', 'a session that nobody uses is closed'],
]

export function tunnelConfigFrom(settings: Settings): TunnelConfig {
  const session: SessionOptions = {
    ...DEFAULT_SESSION,
    streamWindow: settings.integer('HTTP2_STREAM_WINDOW_SIZE', DEFAULT_SESSION.streamWindow, 65_535, MOST),
    connectionWindow: settings.integer(
      'HTTP2_CONNECTION_WINDOW_SIZE',
      DEFAULT_SESSION.connectionWindow,
      65_536,
      MOST,
    ),
    maxFrame: settings.integer('HTTP2_FRAME_SIZE', DEFAULT_SESSION.maxFrame, 16_384, 16_777_215),
    prefaceTimeoutMs: settings.durationMs('HTTP2_PREFACE_TIMEOUT', DEFAULT_SESSION.prefaceTimeoutMs),
    pingIntervalMs: settings.durationMs('HTTP2_PING_INTERVAL', DEFAULT_SESSION.pingIntervalMs),
    pingTimeoutMs: settings.durationMs('HTTP2_PING_TIMEOUT', DEFAULT_SESSION.pingTimeoutMs),
  }
  const pool: PoolOptions = {
    ...DEFAULT_POOL,
    maxStreams: settings.integer('POOL_MAX_STREAMS_PER_CONNECTION', DEFAULT_POOL.maxStreams, 1, 100_000),
    idleMs: settings.durationMs('POOL_UNUSED_RELEASE_TIMEOUT', DEFAULT_POOL.idleMs),
  }
  return {
    session,
    pool,
    connectTimeoutMs: settings.durationMs('CONNECT_TIMEOUT', DEFAULT_PROXY.connectTimeoutMs),
    handshakeTimeoutMs: settings.durationMs('TLS_HANDSHAKE_TIMEOUT', DEFAULT_PROXY.handshakeTimeoutMs),
    responseTimeoutMs: settings.durationMs('CONNECT_RESPONSE_TIMEOUT', DEFAULT_PROXY.responseTimeoutMs),
    patienceMs: settings.durationMs('ENDPOINT_PATIENCE', DEFAULT_PROXY.patienceMs),
    halfClosedMs: settings.durationMs('HALF_CLOSED_TIMEOUT', DEFAULT_PROXY.halfClosedMs),
    certificateWaitMs: settings.durationMs('CERTIFICATE_WAIT', DEFAULT_PROXY.certificateWaitMs),
  }
}

/** The largest window that HTTP/2 knows (RFC 9113 §6.9.1). */
const MOST = 0x7fff_ffff
