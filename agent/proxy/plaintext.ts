/**
 * Captured inbound plaintext: let through where the pod's mode allows it, with the client's own address, and
 * refused with a reset where it does not.
 */
import type { Socket } from 'node:net'
import { isLoopback } from '../../lib/address.ts'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { AGENT_PORTS } from '../ports.ts'
import { originalDestination } from '../sys/sockopt.ts'
import { reset, resetOnClose, socketFd } from './app-socket.ts'
import type { Connection } from './connection.ts'
import { endsOf } from './ends.ts'
import { TOO_MANY, type PodContext } from './pod-context.ts'
import { relaySockets } from './relay.ts'

/** Takes a connection that was redirected to the inbound port. Never throws. */
export function acceptPlaintext(client: Socket, context: PodContext): void {
  client.on('error', ignore)
  resetOnClose(client)
  const destination = originalDestination(socketFd(client))
  const ends = endsOf(client)
  const { pod } = context
  const connection = context.book.open({
    podUid: pod.uid,
    direction: 'inbound',
    source: ends.peer,
    destination: {
      workload: pod.name,
      namespace: pod.namespace,
      cluster: context.options.clusterId,
      ...(destination ?? ends.local),
    },
  })
  connection.cut = () => reset(client)
  if (!destination || AGENT_PORTS.has(destination.port) || isLoopback(destination.ip)) {
    reset(client)
    connection.close({
      reason: 'policy',
      error: 'not a captured connection: a call to the agent itself',
      errorCode: 'SELF_CALL',
    })
    return
  }
  if (context.book.countOf(pod.uid) > context.options.maxConnections) {
    reset(client)
    connection.close(TOO_MANY)
    return
  }
  void carry(client, connection, context).catch((err: unknown) => {
    reset(client)
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: errorCode(err) })
    context.log('error', 'inbound plaintext connection failed unexpectedly', { err: errorText(err) })
  })
}

async function carry(client: Socket, connection: Connection, context: PodContext): Promise<void> {
  const gone = new AbortController()
  client.once('close', () => gone.abort(new CulvertError('CLOSED', 'client closed the connection')))
  const { ip, port } = connection.destination
  const sourceIp = connection.source.ip
  const decision = await context.admit({ sourceIp, identity: undefined, ip, port })
  connection.source = { ...connection.source, ...decision.peer }
  if (decision.kind === 'refuse') {
    reset(client)
    connection.close({ reason: decision.reason, error: decision.detail })
    return
  }
  let app: Socket
  try {
    const target = { ip, port, sourceIp: sourceIp === ip ? undefined : sourceIp }
    app = await context.dial(target, gone.signal)
  } catch (err) {
    reset(client)
    const code = (err instanceof Error ? errorCode(err.cause) : undefined) ?? errorCode(err)
    connection.close({ reason: 'unreachable', error: errorText(err), errorCode: code })
    return
  }
  resetOnClose(app)
  connection.established(decision.reason)
  const counts = {
    fromApp: (bytes: number) => (connection.toDestination += bytes),
    toApp: (bytes: number) => (connection.fromDestination += bytes),
  }
  const relay = relaySockets(client, app, counts, context.options.halfClosedMs)
  connection.cut = why => relay.cut(why)
  connection.close(await relay.ended)
}

function ignore(): void {}
