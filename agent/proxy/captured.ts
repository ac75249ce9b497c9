/**
 * The beginning that both kinds of captured connection share: who is at its ends, where it was meant to go, and
 * whether it may go on at all. What it is then carried by is the caller's.
 */
import type { Cancellation } from '../../lib/cancel.ts'
import { formatAddress, isLoopback, type SocketAddress } from '../../lib/address.ts'
import { errorCode, errorText } from '../../lib/errors.ts'
import { TcpSocket } from '../io/tcp.ts'
import { AGENT_PORTS } from '../ports.ts'
import { localAddress, originalDestination } from '../sys/sockopt.ts'
import { Idle } from './app-socket.ts'
import type { Connection, ConnectionStart } from './connection.ts'
import { TOO_MANY, type PodContext } from './pod-context.ts'

type Ends = Pick<ConnectionStart, 'source' | 'destination'>

export interface CapturedKind {
  readonly direction: ConnectionStart['direction']
  /** For the log. */
  readonly name: string
  /** That such a connection holds. */
  readonly descriptors: number
  /** What is known of the two ends. */
  readonly ends: (peer: SocketAddress, destination: SocketAddress, context: PodContext) => Ends
  /** Gets it on its way: resolves when it is carried, or has been refused. `gone` aborts when the application is lost before anything is carried. */
  readonly carry: (
    socket: TcpSocket,
    connection: Connection,
    context: PodContext,
    gone: Cancellation,
  ) => Promise<void>
}

/**
 * Takes a connection, by its descriptor, that was redirected to one of the agent's ports. The listener it comes from must
 * have `resetOnClose`. Never throws.
 */
export function acceptCaptured(
  fd: number,
  peer: SocketAddress,
  context: PodContext,
  kind: CapturedKind,
): void {
  const idle = new Idle('application closed the connection')
  const socket = new TcpSocket(fd, idle)
  const destination = originalDestination(fd, peer)
  const { pod } = context
  const connection = context.book.open({
    podUid: pod.uid,
    direction: kind.direction,
    descriptors: kind.descriptors,
    ...kind.ends(peer, destination ?? localAddress(fd) ?? peer, context),
  })
  connection.cut = () => socket.reset()
  if (!destination || isLoopback(destination.ip) || AGENT_PORTS.has(destination.port)) {
    socket.reset()
    connection.close({
      reason: 'policy',
      error: 'not a captured connection: a call to the agent itself',
      errorCode: 'SELF_CALL',
    })
    return
  }
  if (context.book.descriptorsOf(pod.uid) > context.options.maxConnections) {
    socket.reset()
    connection.close(TOO_MANY)
    return
  }
  void kind.carry(socket, connection, context, idle.gone).catch((err: unknown) => {
    socket.reset()
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: errorCode(err) })
    context.log('error', `${kind.name} connection failed unexpectedly`, {
      err: errorText(err),
      dst: formatAddress(destination.ip, destination.port),
    })
  })
}
