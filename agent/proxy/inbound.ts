/**
 * Inbound HBONE: a peer's agent asks for a tunnel to an address of this pod. 200 goes out only once policy has
 * passed and the application has accepted; the application sees the client's own address.
 */
import { formatAddress, parseAddress, type SocketAddress } from '../../lib/address.ts'
import { Cancel } from '../../lib/cancel.ts'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import { CODE, SessionError } from '../hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../hbone/server.ts'
import { clientIdentity } from '../hbone/tls.ts'
import type { TcpSocket } from '../io/tcp.ts'
import type { TlsSocket } from '../io/tls-socket.ts'
import { AGENT_PORTS, PORT } from '../ports.ts'
import { resetOnClose } from './app-socket.ts'
import { Carried, cutWith } from './carried.ts'
import type { Connection } from './connection.ts'
import { endsOf } from './ends.ts'
import { parseForwarded } from './forwarded.ts'
import { TOO_MANY, type PodContext } from './pod-context.ts'
import { relayTunnel } from './relay.ts'

/** Takes an authenticated TLS connection from a peer. Undefined when the peer was turned away. */
export function acceptHbone(socket: TlsSocket, context: PodContext): ServerSession | undefined {
  const ends = endsOf(socket.fd)
  const { ip: sourceIp, port: sourcePort } = ends.peer
  const localIp = ends.local.ip
  const hboneAddress = formatAddress(localIp, PORT.hbone)
  try {
    const identity = clientIdentity(socket.peerCertificate(), context.trustDomain)
    const session = new ServerSession(socket, context.options.session, request => {
      accept(request, { identity, sourceIp, sourcePort, localIp, hboneAddress }, context)
    })
    session.onClosed(error => {
      if (!error) return
      context.log('debug', 'inbound session ended', {
        pod: context.pod.name,
        peer: sourceIp,
        identity,
        err: errorText(error),
        limit: error instanceof SessionError ? error.limit : undefined,
      })
    })
    return session
  } catch (err) {
    const connection = context.book.open({
      podUid: context.pod.uid,
      direction: 'inbound',
      source: ends.peer,
      destination: { ...here(context), ip: localIp, port: 0 },
    })
    connection.close({ reason: 'identity', error: errorText(err), errorCode: errorCode(err) })
    socket.destroy()
    return undefined
  }
}

/** Made once: an error is dear, and every tunnel ends. */
const GIVEN_UP = new CulvertError('CLOSED', 'peer gave the tunnel up')

interface Peer {
  readonly identity: string
  readonly sourceIp: string
  readonly sourcePort: number
  /** The address the peer dialled: this pod's. */
  readonly localIp: string
  /** The same with the port of the tunnel. */
  readonly hboneAddress: string
}

function accept(request: ConnectRequest, peer: Peer, context: PodContext): void {
  const target = parseAddress(request.authority)
  const forwarded = parseForwarded(request.headers.get('forwarded') ?? '')
  const connection = context.book.open({
    podUid: context.pod.uid,
    direction: 'inbound',
    // The port in `forwarded` is only for the log: the address that counts is the one TCP verified.
    source: {
      ip: peer.sourceIp,
      port: forwarded?.for?.ip === peer.sourceIp ? forwarded.for.port : peer.sourcePort,
      identity: peer.identity,
    },
    destination: { ...here(context), ip: target?.ip ?? peer.localIp, port: target?.port ?? 0 },
  })
  connection.hboneAddress = peer.hboneAddress
  connection.cut = () => request.tunnel.reset(CODE.connectError)
  if (context.book.descriptorsOf(context.pod.uid) > context.options.maxConnections) {
    request.respond(503, [['culvert-error', TOO_MANY.errorCode]])
    connection.close(TOO_MANY)
    return
  }
  void answer(request, target, peer, connection, context).catch((err: unknown) => {
    request.respond(503)
    request.tunnel.reset(CODE.connectError)
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: errorCode(err) })
    context.log('error', 'inbound tunnel failed unexpectedly', {
      err: errorText(err),
      authority: printable(request.authority),
    })
  })
}

async function answer(
  request: ConnectRequest,
  target: SocketAddress | undefined,
  peer: Peer,
  connection: Connection,
  context: PodContext,
): Promise<void> {
  if (!target) {
    request.respond(400)
    connection.close({
      reason: 'policy',
      error: `CONNECT to '${printable(request.authority)}', which is not ip:port`,
      errorCode: 'BAD_AUTHORITY',
    })
    return
  }
  if (target.ip !== peer.localIp || !context.pod.ips.includes(target.ip) || AGENT_PORTS.has(target.port)) {
    request.respond(400)
    connection.close({
      reason: 'policy',
      error: `CONNECT to ${printable(request.authority)}, which is not this pod's to reach`,
      errorCode: 'BAD_AUTHORITY',
    })
    return
  }
  const decision = await context.admit({
    sourceIp: peer.sourceIp,
    identity: peer.identity,
    ip: target.ip,
    port: target.port,
  })
  connection.source = { ...connection.source, ...decision.peer, identity: peer.identity }
  if (decision.kind === 'refuse') {
    request.respond(401)
    connection.close({ reason: decision.reason, error: decision.detail })
    return
  }
  const gone = new Cancel()
  const giveUp = () => gone.abort(GIVEN_UP)
  request.tunnel.onClosed(giveUp)
  let app: TcpSocket
  try {
    // A pod that calls itself must not be spoofed: the reply would never come back through the tunnel.
    const sourceIp = peer.sourceIp === target.ip ? undefined : peer.sourceIp
    app = await context.dial({ ...target, sourceIp, isLocal: true }, gone)
  } catch (err) {
    const code = (err instanceof Error ? errorCode(err.cause) : undefined) ?? errorCode(err) ?? 'UNREACHABLE'
    request.respond(503, [['culvert-error', code]])
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: code })
    return
  } finally {
    request.tunnel.offClosed(giveUp)
  }
  if (request.tunnel.isClosed) {
    app.reset()
    connection.close({
      reason: 'unreachable',
      error: 'peer gave the tunnel up while the application was being reached',
    })
    return
  }
  resetOnClose(app)
  request.respond(200)
  connection.established('mtls')
  const owner = new Carried(connection, 'destination')
  connection.cut = cutWith(relayTunnel(app, request.tunnel, owner, context.options.halfClosedMs))
}

function here(context: PodContext): {
  workload: string
  namespace: string
  identity: string
  cluster: string
} {
  const { pod } = context
  return {
    workload: pod.name,
    namespace: pod.namespace,
    identity: pod.identity,
    cluster: context.options.clusterId,
  }
}
