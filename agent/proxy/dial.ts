/** Connections that the agent makes, from inside a pod's network namespace and with its mark. */
import { formatAddress } from '../../lib/address.ts'
import type { Cancellation } from '../../lib/cancel.ts'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { ClientSession } from '../hbone/client.ts'
import type { SessionOptions } from '../hbone/limits.ts'
import { expectIdentity } from '../hbone/tls.ts'
import { TcpSocket, type SocketFailure } from '../io/tcp.ts'
import { TlsSocket } from '../io/tls-socket.ts'
import { MARK } from '../ports.ts'
import { inNetns } from '../sys/netns.ts'
import { encodeSockaddr } from '../sys/sockaddr.ts'
import { connectSocket } from '../sys/socket.ts'
import type { TlsContext } from '../sys/tls-context.ts'
import { Idle } from './app-socket.ts'

export interface DialTarget {
  readonly ip: string
  readonly port: number
  /** Connect from this address, which need not be one of the namespace's own (IP_TRANSPARENT). */
  readonly sourceIp?: string | undefined
  /** The application of this pod, which cannot fall silent without the kernel's knowing. @default false */
  readonly isLocal?: boolean
}

/**
 * A connected TCP socket made inside the namespace, from which nobody reads yet. Rejects with `UNREACHABLE`, whose cause
 * has the errno name, or with the signal's reason.
 */
export function dial(
  netnsFd: number,
  target: DialTarget,
  timeoutMs: number,
  signal: Cancellation,
): Promise<TcpSocket> {
  const { ip, port, sourceIp, isLocal = false } = target
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const family = ip.includes(':') ? 6 : 4
    const fd = inNetns(netnsFd, () =>
      connectSocket({ family, mark: MARK, sourceIp, keepalive: isLocal ? 'none' : undefined }),
    )
    const settle = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
    const failed = (cause: unknown) => {
      settle()
      reject(new CulvertError('UNREACHABLE', `connect to ${formatAddress(ip, port)}`, { cause }))
    }
    const socket = TcpSocket.connecting(fd, encodeSockaddr(ip, port), {
      readable: () => undefined,
      drained: () => {
        settle()
        socket.owner = new Idle('connection lost before anything was carried')
        resolve(socket)
      },
      failed: (error: SocketFailure) => failed(error),
    })
    const timer = setTimeout(() => {
      socket.destroy()
      failed(Object.assign(new Error(`no answer within ${timeoutMs} ms`), { code: 'ETIMEDOUT' }))
    }, timeoutMs)
    const abort = () => {
      settle()
      socket.destroy()
      reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
  })
}

export interface HboneTarget {
  readonly ip: string
  readonly port: number
  readonly identities: readonly string[]
  readonly context: TlsContext
}

/**
 * An HBONE session to a peer: TCP, TLS, both SETTINGS exchanged. Rejects with `UNREACHABLE`, `TLS`, `IDENTITY` or
 * `TIMEOUT`.
 */
export async function dialHbone(
  connect: (target: DialTarget) => Promise<TcpSocket>,
  target: HboneTarget,
  options: SessionOptions,
  handshakeTimeoutMs: number,
): Promise<ClientSession> {
  const where = formatAddress(target.ip, target.port)
  const raw = await connect({ ip: target.ip, port: target.port })
  const socket = await handshake(raw, target, handshakeTimeoutMs, where)
  const session = new ClientSession(socket, options)
  try {
    await session.ready()
  } catch (err) {
    throw new CulvertError('TLS', `peer ${where} closed the session before HTTP/2 began`, {
      cause: err,
      hint: 'its log says why: a certificate it does not trust, or a policy on port 15008',
    })
  }
  return session
}

async function handshake(
  raw: TcpSocket,
  target: HboneTarget,
  timeoutMs: number,
  where: string,
): Promise<TlsSocket> {
  if (raw.isClosed) throw new CulvertError('TLS', `peer ${where} closed the connection at once`)
  const socket = new TlsSocket(raw.detach(), target.context, 'client')
  let isLate = false
  const timer = setTimeout(() => {
    isLate = true
    socket.destroy()
  }, timeoutMs)
  try {
    await socket.secured
    expectIdentity(socket.peerCertificate(), target.identities)
    const alpn = socket.alpn()
    if (alpn !== 'h2') throw new CulvertError('TLS', `peer ${where} does not speak HTTP/2 (ALPN '${alpn}')`)
    return socket
  } catch (err) {
    socket.destroy()
    if (isLate)
      throw new CulvertError('TIMEOUT', `TLS handshake with ${where} not done within ${timeoutMs} ms`)
    if (err instanceof CulvertError) throw err
    throw new CulvertError('TLS', `TLS with ${where}: ${errorText(err)}`, {
      cause: Object.assign(new Error(errorText(err)), { code: errorCode(err) }),
    })
  } finally {
    clearTimeout(timer)
  }
}
