/**
 * Captured outbound connections: read where the application wanted to go, ask where that is, and go there, through
 * a tunnel where the peer has one. Nothing is sent before the far end is known to be there, so another endpoint
 * can be tried as long as the first one has not accepted. A failure is a reset, never an end.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { formatAddress, type SocketAddress } from '../../lib/address.ts'
import { Cancel, type Cancellation } from '../../lib/cancel.ts'
import { CulvertError } from '../../lib/errors.ts'
import type { ClientSession } from '../hbone/client.ts'
import type { Tunnel } from '../hbone/tunnel.ts'
import type { TcpSocket } from '../io/tcp.ts'
import type { Endpoint, ServiceInfo } from '../worker/messages.ts'
import { resetOnClose } from './app-socket.ts'
import { acceptCaptured, type CapturedKind } from './captured.ts'
import { Carried, cutWith } from './carried.ts'
import type { Connection } from './connection.ts'
import { dialHbone } from './dial.ts'
import { failureOf, refusal, type Failure } from './failure.ts'
import { formatForwarded } from './forwarded.ts'
import type { PodContext } from './pod-context.ts'
import { relaySockets, relayTunnel } from './relay.ts'
import { newTraceparent } from './traceparent.ts'

/** Attempts for one connection, at one endpoint or at several. */
const MAX_TRIES = 3
/** How often the same endpoint is tried again, when its agent goes away in the middle, and after how long. */
const MAX_AGAINS = 4
const AGAIN_AFTER_MS = 20

/** Takes a connection that was redirected to the outbound port, by its descriptor. Never throws. */
export function acceptOutbound(fd: number, peer: SocketAddress, context: PodContext): void {
  acceptCaptured(fd, peer, context, OUTBOUND)
}

const OUTBOUND: CapturedKind = {
  direction: 'outbound',
  name: 'outbound',
  descriptors: 1,
  ends: (peer, destination, { pod, options }) => ({
    source: {
      ...peer,
      workload: pod.name,
      namespace: pod.namespace,
      identity: pod.identity,
      cluster: options.clusterId,
    },
    destination,
  }),
  carry,
}

async function carry(
  app: TcpSocket,
  connection: Connection,
  context: PodContext,
  gone: Cancellation,
): Promise<void> {
  const { ip, port } = connection.destination
  const decision = await context.route(ip, port)
  if (decision.service) connection.service = decision.service
  if (decision.kind === 'refuse') {
    if (decision.peer) connection.destination = { ...decision.peer, ip, port }
    app.reset()
    connection.close({ reason: decision.reason, error: decision.detail })
    return
  }
  const tried = new Set<Endpoint>()
  let failure: Failure = { reason: 'no-endpoint', error: 'no endpoint to try', next: 'give-up' }
  const pick = () =>
    decision.inOrder
      ? decision.endpoints.find(each => !tried.has(each))
      : pickEndpoint(decision.endpoints, tried)
  let endpoint = pick()
  let agains = 0
  for (let tries = 0; tries < MAX_TRIES && endpoint; tries++) {
    tried.add(endpoint)
    connection.destination = { ...endpoint.peer, ip: endpoint.ip, port: endpoint.port }
    const hasOther = tries + 1 < MAX_TRIES && tried.size < decision.endpoints.length
    const { service } = decision
    const attempt = { app, connection, context, endpoint, service, hasOther, signal: gone }
    const { via } = endpoint
    const result = via.kind === 'hbone' ? await viaTunnel(attempt, via) : await inTheClear(attempt, via)
    if (!result) return
    failure = result
    if (failure.next === 'give-up' || gone.aborted) break
    const other = pick()
    if (!other && failure.next === 'try-again' && agains++ < MAX_AGAINS) {
      tries--
      await sleep(AGAIN_AFTER_MS) // the news that the other sessions are lost too may be under way
    } else endpoint = other
  }
  app.reset()
  connection.close(failure)
}

/** One try to carry a connection, at one endpoint. */
interface Attempt {
  readonly app: TcpSocket
  readonly connection: Connection
  readonly context: PodContext
  readonly endpoint: Endpoint
  readonly service: ServiceInfo | undefined
  /** There is another endpoint to try: this one need not be waited for as long as can be. */
  readonly hasOther: boolean
  /** Aborts when the application has gone. */
  readonly signal: Cancellation
}

type Via<K extends Endpoint['via']['kind']> = Extract<Endpoint['via'], { kind: K }>

/** Undefined when the connection is carried. */
async function viaTunnel(attempt: Attempt, via: Via<'hbone'>): Promise<Failure | undefined> {
  const { app, connection, context, endpoint, service, hasOther, signal } = attempt
  connection.hboneAddress = formatAddress(endpoint.ip, via.port)
  const { responseTimeoutMs, patienceMs } = context.options
  const limit = new Cancel(signal)
  const late = setTimeout(() => limit.abort(LATE), responseTimeoutMs)
  let session: ClientSession | undefined
  const impatient = hasOther ? setTimeout(() => session ?? limit.abort(LATE), patienceMs) : undefined
  let tunnel: Tunnel
  try {
    session = await context.pool.acquire(
      poolKey(endpoint, via),
      () => openSession(context, endpoint, via),
      limit,
    )
    // Told while this one waited, of a pod that had to be served without a name.
    if (connection.source.identity === '')
      connection.source = { ...connection.source, identity: context.pod.identity }
    const opened = await openTunnel(session, endpoint, connection, service, limit)
    const { status } = opened.response
    if (status !== 200) return refusal(status, opened.response.headers)
    tunnel = opened.tunnel
  } catch (err) {
    if (limit.reason === LATE) return silence(session || !hasOther ? responseTimeoutMs : patienceMs)
    return failureOf(err)
  } finally {
    clearTimeout(late)
    clearTimeout(impatient)
  }
  connection.established('mtls')
  const owner = new Carried(connection, 'source')
  connection.cut = cutWith(relayTunnel(app, tunnel, owner, context.options.halfClosedMs))
  return undefined
}

function openSession(context: PodContext, endpoint: Endpoint, via: Via<'hbone'>): Promise<ClientSession> {
  const { options } = context
  const never = new Cancel() // a session serves whoever waits for it, not only who asked first
  return context
    .tlsContext(AbortSignal.timeout(options.certificateWaitMs))
    .then(secureContext =>
      dialHbone(
        target => context.dial(target, never),
        { ip: endpoint.ip, port: via.port, identities: via.identities, context: secureContext },
        options.session,
        options.handshakeTimeoutMs,
      ),
    )
}

function openTunnel(
  session: ClientSession,
  endpoint: Endpoint,
  connection: Connection,
  service: ServiceInfo | undefined,
  signal: Cancellation,
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

async function inTheClear(attempt: Attempt, via: Via<'tcp'>): Promise<Failure | undefined> {
  const { app, connection, context, endpoint, hasOther, signal } = attempt
  connection.hboneAddress = undefined
  if (connection.descriptors === 1) connection.holdOneMore()
  const { patienceMs } = context.options
  const limit = new Cancel(signal)
  const impatient = hasOther ? setTimeout(() => limit.abort(LATE), patienceMs) : undefined
  let peer: TcpSocket
  try {
    const target = { ip: endpoint.ip, port: endpoint.port }
    peer = await context.dial(target, limit)
  } catch (err) {
    return limit.reason === LATE ? silence(patienceMs) : failureOf(err)
  } finally {
    clearTimeout(impatient)
  }
  resetOnClose(peer)
  connection.established(via.reason)
  const owner = new Carried(connection, 'source')
  connection.cut = cutWith(relaySockets(app, peer, owner, context.options.halfClosedMs))
  return undefined
}

/** Why an attempt is given up that takes too long. */
const LATE = new CulvertError('TIMEOUT', 'no answer in time')

function silence(ms: number): Failure {
  return {
    reason: 'unreachable',
    error: `no answer within ${ms} ms`,
    errorCode: 'ETIMEDOUT',
    next: 'try-other',
  }
}

function poolKey(endpoint: Endpoint, via: Via<'hbone'>): string {
  return `${endpoint.ip}|${via.port}|${via.identities.join()}`
}

/** One of those not tried yet, at random in proportion to the weights; all weights 0 means all equal. */
export function pickEndpoint<E extends { readonly weight: number }>(
  endpoints: readonly E[],
  tried: ReadonlySet<E>,
  random: () => number = Math.random,
): E | undefined {
  if (endpoints.length === 1) return tried.size === 0 ? endpoints[0] : undefined
  const left = tried.size === 0 ? endpoints : endpoints.filter(endpoint => !tried.has(endpoint))
  let total = 0
  for (const endpoint of left) total += endpoint.weight
  if (total <= 0) return left[Math.floor(random() * left.length)]
  let at = random() * total
  for (const endpoint of left) {
    at -= endpoint.weight
    if (at < 0) return endpoint
  }
  return left.at(-1)
}
