/**
 * Captured inbound plaintext: let through where the pod's mode allows it, with the client's own address, and
 * refused with a reset where it does not.
 */
import type { SocketAddress } from '../../lib/address.ts'
import type { Cancellation } from '../../lib/cancel.ts'
import { errorCode, errorText } from '../../lib/errors.ts'
import type { TcpSocket } from '../io/tcp.ts'
import { isAtEnd } from '../sys/sockopt.ts'
import { endInOrder, resetOnClose } from './app-socket.ts'
import { acceptCaptured, type CapturedKind } from './captured.ts'
import { Carried, cutWith } from './carried.ts'
import type { Connection } from './connection.ts'
import type { PodContext } from './pod-context.ts'
import { relaySockets } from './relay.ts'

/** Takes a connection that was redirected to the inbound port, by its descriptor. Never throws. */
export function acceptPlaintext(fd: number, peer: SocketAddress, context: PodContext): void {
  acceptCaptured(fd, peer, context, PLAINTEXT)
}

const PLAINTEXT: CapturedKind = {
  direction: 'inbound',
  name: 'inbound plaintext',
  descriptors: 2,
  ends: (peer, destination, { pod, options }) => ({
    source: peer,
    destination: {
      workload: pod.name,
      namespace: pod.namespace,
      cluster: options.clusterId,
      ...destination,
    },
  }),
  carry,
}

async function carry(
  client: TcpSocket,
  connection: Connection,
  context: PodContext,
  gone: Cancellation,
): Promise<void> {
  const { ip, port } = connection.destination
  const { ip: sourceIp, port: sourcePort } = connection.source
  const question = { sourceIp, identity: undefined, ip, port }
  let decision = await context.admit(question)
  if (decision.kind === 'admit' && decision.isForEach)
    decision = await context.admit({ ...question, sourcePort })
  if (decision.kind === 'admit' && decision.otherwise) {
    if (isAtEnd(client.fd)) {
      endInOrder(client, () => client.destroy())
      connection.close({ reason: decision.reason })
      return
    }
    decision = decision.otherwise
  }
  connection.source = { ...connection.source, ...decision.peer }
  if (decision.kind === 'refuse') {
    client.reset()
    connection.close({ reason: decision.reason, error: decision.detail })
    return
  }
  let app: TcpSocket
  try {
    const target = { ip, port, sourceIp: sourceIp === ip ? undefined : sourceIp, isLocal: true }
    app = await context.dial(target, gone)
  } catch (err) {
    client.reset()
    const code = (err instanceof Error ? errorCode(err.cause) : undefined) ?? errorCode(err)
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: code })
    return
  }
  resetOnClose(app)
  connection.established(decision.reason)
  const owner = new Carried(connection, 'source')
  connection.cut = cutWith(relaySockets(client, app, owner, context.options.halfClosedMs))
}
