/**
 * Captured outbound connections: read where the application wanted to go, ask where that is, and go there, through
 * a tunnel where the peer has one. Nothing is sent before the far end is known to be there, so another endpoint
 * can be tried as long as the first one has not accepted. A failure is a reset, never an end.
 */
import type { Socket } from 'node:net'
import { canonicalIp, formatAddress, isLoopback } from '../../lib/address.ts'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import type { RefusedReason } from '../../lib/reasons.ts'
import type { ClientSession } from '../hbone/client.ts'
import { StreamResetError } from '../hbone/protocol.ts'
import type { Tunnel } from '../hbone/tunnel.ts'
import { AGENT_PORTS } from '../ports.ts'
import { originalDestination } from '../sys/sockopt.ts'
import type { Endpoint, ServiceInfo } from '../worker/messages.ts'
import { reset, resetOnClose, socketFd } from './app-socket.ts'
import type { Connection } from './connection.ts'
import { dial, dialHbone } from './dial.ts'
import { formatForwarded } from './forwarded.ts'
import type { PodContext } from './pod-context.ts'
import { relaySockets, relayTunnel, type RelayCounts } from './relay.ts'
import { newTraceparent } from './traceparent.ts'

/** A failure that has found its word. */
interface Failure {
  readonly reason: RefusedReason
  readonly error: string
  readonly errorCode?: string | undefined
  /** Another endpoint may be tried: nothing was sent. */
  readonly mayRetry: boolean
}

/** How many endpoints are tried for one connection. */
const MAX_TRIES = 3

/** Takes a connection that was redirected to the outbound port. Never throws. */
export function acceptOutbound(app: Socket, context: PodContext): void {
  app.on('error', ignore)
  resetOnClose(app)
  const destination = originalDestination(socketFd(app))
  const source = { ip: plainIp(app.remoteAddress), port: app.remotePort ?? 0 }
  const { pod } = context
  const connection = context.book.open({
    podUid: pod.uid,
    direction: 'outbound',
    source: {
      ...source,
      workload: pod.name,
      namespace: pod.namespace,
      identity: pod.identity,
      cluster: context.options.clusterId,
    },
    destination: destination ?? { ip: plainIp(app.localAddress), port: app.localPort ?? 0 },
  })
  connection.cut = () => reset(app)
  if (!destination || isLoopback(destination.ip) || AGENT_PORTS.has(destination.port)) {
    reset(app)
    connection.close({
      reason: 'policy',
      error: 'not a captured connection: a call to the agent itself',
      errorCode: 'SELF_CALL',
    })
    return
  }
  void carry(app, connection, context).catch((err: unknown) => {
    reset(app)
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: errorCode(err) })
    context.log('error', 'outbound connection failed unexpectedly', {
      err: errorText(err),
      dst: formatAddress(destination.ip, destination.port),
    })
  })
}

async function carry(app: Socket, connection: Connection, context: PodContext): Promise<void> {
  const gone = new AbortController()
  app.once('close', () => gone.abort(new CulvertError('CLOSED', 'application closed the connection')))
  const { ip, port } = connection.destination
  const decision = await context.route(ip, port)
  if (decision.service) connection.service = decision.service
  if (decision.kind === 'refuse') {
    if (decision.peer) connection.destination = { ...decision.peer, ip, port }
    reset(app)
    connection.close({ reason: decision.reason, error: decision.detail })
    return
  }
  const candidates = [...decision.endpoints]
  let failure: Failure = { reason: 'no-endpoint', error: 'no endpoint to try', mayRetry: false }
  for (let tries = 0; tries < MAX_TRIES && candidates.length > 0; tries++) {
    const endpoint =
      candidates.length === 1 ? candidates.pop()! : candidates.splice(pickWeighted(candidates), 1)[0]!
    connection.destination = { ...endpoint.peer, ip: endpoint.ip, port: endpoint.port }
    const result =
      endpoint.via.kind === 'hbone'
        ? await viaTunnel(app, connection, context, endpoint, endpoint.via, decision.service, gone.signal)
        : await inTheClear(app, connection, context, endpoint, endpoint.via.reason, gone.signal)
    if (!result) return
    failure = result
    if (!failure.mayRetry || gone.signal.aborted) break
  }
  reset(app)
  connection.close(failure)
}

/** Undefined when the connection was carried to its end. */
async function viaTunnel(
  app: Socket,
  connection: Connection,
  context: PodContext,
  endpoint: Endpoint,
  via: Extract<Endpoint['via'], { kind: 'hbone' }>,
  service: ServiceInfo | undefined,
  signal: AbortSignal,
): Promise<Failure | undefined> {
  connection.hboneAddress = formatAddress(endpoint.ip, via.port)
  const timeout = AbortSignal.timeout(context.options.responseTimeoutMs)
  const both = AbortSignal.any([signal, timeout])
  let tunnel: Tunnel
  try {
    const session = await context.pool.acquire(
      poolKey(endpoint, via),
      () => openSession(context, endpoint, via),
      both,
    )
    const opened = await openTunnel(session, endpoint, connection, service, both)
    const { status } = opened.response
    if (status !== 200) return refusal(status, opened.response.headers)
    tunnel = opened.tunnel
  } catch (err) {
    if (timeout.aborted)
      return {
        reason: 'unreachable',
        error: `no answer within ${context.options.responseTimeoutMs} ms`,
        errorCode: 'ETIMEDOUT',
        mayRetry: true,
      }
    return failureOf(err)
  }
  connection.established('mtls')
  const relay = relayTunnel(app, tunnel, countsOf(connection))
  connection.cut = why => relay.cut(why)
  connection.close(await relay.ended)
  return undefined
}

function openSession(
  context: PodContext,
  endpoint: Endpoint,
  via: Extract<Endpoint['via'], { kind: 'hbone' }>,
): Promise<ClientSession> {
  const { options, pod } = context
  const never = new AbortController().signal // a session serves whoever waits for it, not only who asked first
  const limit = AbortSignal.timeout(options.certificateWaitMs)
  return context
    .tlsContext(limit)
    .then(secureContext =>
      dialHbone(
        pod.netnsFd,
        { ip: endpoint.ip, port: via.port, identities: via.identities, context: secureContext },
        options.session,
        { connectMs: options.connectTimeoutMs, handshakeMs: options.handshakeTimeoutMs },
        never,
      ),
    )
}

function openTunnel(
  session: ClientSession,
  endpoint: Endpoint,
  connection: Connection,
  service: ServiceInfo | undefined,
  signal: AbortSignal,
): ReturnType<ClientSession['connect']> {
  session.reserved--
  const { source } = connection
  return session.connect(
    formatAddress(endpoint.ip, endpoint.port),
    [
      ['forwarded', formatForwarded({ for: { ip: source.ip, port: source.port }, host: service?.hostname })],
      ['traceparent', newTraceparent()],
    ],
    signal,
  )
}

async function inTheClear(
  app: Socket,
  connection: Connection,
  context: PodContext,
  endpoint: Endpoint,
  reason: Extract<Endpoint['via'], { kind: 'tcp' }>['reason'],
  signal: AbortSignal,
): Promise<Failure | undefined> {
  connection.hboneAddress = undefined
  let peer: Socket
  try {
    peer = await dial(context.pod.netnsFd, endpoint, context.options.connectTimeoutMs, signal)
  } catch (err) {
    return failureOf(err)
  }
  resetOnClose(peer)
  connection.established(reason)
  const relay = relaySockets(app, peer, countsOf(connection))
  connection.cut = why => relay.cut(why)
  connection.close(await relay.ended)
  return undefined
}

/** The peer's agent answered, and not with 200. */
function refusal(status: number, headers: ReadonlyMap<string, string>): Failure {
  const detail = headers.get('culvert-error')
  const said = `peer answered ${status}${detail ? ` (${detail})` : ''}`
  if (status === 401) return { reason: 'policy', error: said, errorCode: 'HTTP_401', mayRetry: false }
  const code = detail && /^E[A-Z]{2,20}$/.test(detail) ? detail : `HTTP_${status}`
  return { reason: 'unreachable', error: said, errorCode: code, mayRetry: status === 503 }
}

function failureOf(err: unknown): Failure {
  const error = errorText(err)
  if (err instanceof StreamResetError)
    return {
      reason: 'unreachable',
      error,
      errorCode: 'STREAM_RESET',
      mayRetry: err.isRetryable || err.byPeer,
    }
  const code = errorCode(err)
  const cause = err instanceof Error ? errorCode(err.cause) : undefined
  if (code === 'IDENTITY') return { reason: 'identity', error, errorCode: code, mayRetry: true }
  if (code === 'TLS' || code === 'TIMEOUT' || code === 'PKI')
    return { reason: 'tls', error, errorCode: cause ?? code, mayRetry: true }
  return { reason: 'unreachable', error, errorCode: cause ?? code, mayRetry: code === 'UNREACHABLE' }
}

function poolKey(endpoint: Endpoint, via: Extract<Endpoint['via'], { kind: 'hbone' }>): string {
  return `${endpoint.ip}|${via.port}|${via.identities.join()}`
}

/** Index of one endpoint, chosen at random in proportion to the weights; all weights 0 means all equal. */
export function pickWeighted(
  endpoints: readonly { readonly weight: number }[],
  random: () => number = Math.random,
): number {
  let total = 0
  for (const endpoint of endpoints) total += endpoint.weight
  if (total <= 0) return Math.floor(random() * endpoints.length)
  let at = random() * total
  for (let index = 0; index < endpoints.length; index++) {
    at -= endpoints[index]!.weight
    if (at < 0) return index
  }
  return endpoints.length - 1
}

function countsOf(connection: Connection): RelayCounts {
  return {
    fromApp: bytes => (connection.toDestination += bytes),
    toApp: bytes => (connection.fromDestination += bytes),
  }
}

function plainIp(ip: string | undefined): string {
  return ip ? canonicalIp(ip) : '0.0.0.0'
}

function ignore(): void {}
