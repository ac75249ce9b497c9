/** Connections that the agent makes, from inside a pod's network namespace and with its mark. */
import { Socket } from 'node:net'
import { connect as tlsConnect, type SecureContext, type TLSSocket } from 'node:tls'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { formatAddress } from '../../lib/address.ts'
import { ClientSession } from '../hbone/client.ts'
import type { SessionOptions } from '../hbone/limits.ts'
import { expectIdentity } from '../hbone/tls.ts'
import { MARK } from '../ports.ts'
import { inNetns } from '../sys/netns.ts'
import { connectSocket } from '../sys/socket.ts'

export interface DialTarget {
  readonly ip: string
  readonly port: number
  /** Connect from this address, which need not be one of the namespace's own (IP_TRANSPARENT). */
  readonly sourceIp?: string | undefined
}

/**
 * A connected TCP socket made inside the namespace. Rejects with `UNREACHABLE`, whose cause has the errno name,
 * or with the signal's reason. The socket is paused and allows half-open ends.
 */
export function dial(
  netnsFd: number,
  target: DialTarget,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Socket> {
  const { ip, port, sourceIp } = target
  const where = formatAddress(ip, port)
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const family = ip.includes(':') ? 6 : 4
    const fd = inNetns(netnsFd, () =>
      connectSocket({ family, mark: MARK, ...(sourceIp === undefined ? {} : { sourceIp }) }),
    )
    const socket = new Socket({ fd, allowHalfOpen: true, manualStart: true } as never)
    const timer = setTimeout(
      () => fail(Object.assign(new Error(`no answer within ${timeoutMs} ms`), { code: 'ETIMEDOUT' })),
      timeoutMs,
    )
    const fail = (err: unknown) => {
      settle()
      socket.destroy()
      reject(new CulvertError('UNREACHABLE', `connect to ${where}`, { cause: err }))
    }
    const abort = () => {
      settle()
      socket.destroy()
      reject(signal.reason as Error)
    }
    const settle = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      socket.off('error', fail)
      socket.on('error', ignore) // whoever gets the socket adds a listener that does something
    }
    socket.on('error', fail)
    signal.addEventListener('abort', abort, { once: true })
    socket.connect({ host: ip, port }, () => {
      settle()
      socket.setNoDelay(true)
      socket.setKeepAlive(true, KEEPALIVE_MS)
      resolve(socket)
    })
    socket.pause()
  })
}

export interface HboneTarget {
  readonly ip: string
  readonly port: number
  readonly identities: readonly string[]
  readonly context: SecureContext
}

/**
 * An HBONE session to a peer: TCP, TLS, both SETTINGS exchanged. Rejects with `UNREACHABLE`, `TLS`, `IDENTITY` or
 * `TIMEOUT`.
 */
export async function dialHbone(
  connect: (target: DialTarget) => Promise<Socket>,
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

function handshake(raw: Socket, target: HboneTarget, timeoutMs: number, where: string): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({
      socket: raw,
      secureContext: target.context,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: true,
      checkServerIdentity: expectIdentity(target.identities),
      servername: '',
      highWaterMark: TRANSPORT_BUFFER,
    } as never)
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new CulvertError('TIMEOUT', `TLS handshake with ${where} not done within ${timeoutMs} ms`))
    }, timeoutMs)
    socket.on('error', err => {
      clearTimeout(timer)
      socket.destroy()
      const isIdentity = errorCode(err) === 'IDENTITY'
      reject(
        new CulvertError(isIdentity ? 'IDENTITY' : 'TLS', isIdentity ? errorText(err) : `TLS with ${where}`, {
          cause: err,
        }),
      )
    })
    socket.once('close', () => {
      clearTimeout(timer)
      reject(
        new CulvertError('TLS', `peer ${where} closed the connection during the handshake`, {
          cause: new CulvertError('CLOSED', 'end of stream'),
        }),
      )
    })
    socket.once('secureConnect', () => {
      clearTimeout(timer)
      if (socket.alpnProtocol === 'h2') resolve(socket)
      else {
        socket.destroy()
        reject(
          new CulvertError(
            'TLS',
            `peer ${where} does not speak HTTP/2 (ALPN ${String(socket.alpnProtocol)})`,
          ),
        )
      }
    })
  })
}

/** The field's own: dead peers behind a silent network are noticed within a few minutes. */
const KEEPALIVE_MS = 180_000
const TRANSPORT_BUFFER = 1024 * 1024

function ignore(): void {}
