/**
 * The tunnel port of one pod: TLS handshakes, bounded in number and time, and a record of each that fails. Whoever
 * can reach the pod can begin one; it must cost neither the memory nor the descriptors of the other pods.
 */
import type { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import type { SocketAddress } from '../../lib/address.ts'
import { errorText } from '../../lib/errors.ts'
import type { ServerSession } from '../hbone/server.ts'
import { contextOptions, handshakeFailure } from '../hbone/tls.ts'
import { PORT } from '../ports.ts'
import type { PodCertificate } from '../worker/messages.ts'
import { reset } from './app-socket.ts'
import { peerOf } from './ends.ts'
import { acceptHbone } from './inbound.ts'
import type { PodContext } from './pod-context.ts'

/**
 * Handshakes under way at once; the oldest gives way to the next. One costs about 60 KB, and an honest one is over in
 * milliseconds: the oldest of so many is somebody who keeps silent.
 */
const MAX_HANDSHAKES = 1024
/** The kernel caps it at net.core.somaxconn. */
const BACKLOG = 4096
const TRANSPORT_BUFFER = 1024 * 1024

export class HboneListener {
  readonly #server: Server
  readonly #context: PodContext
  /** Who is at the other end of a connection, by its socket below TLS: known only while the connection stands. */
  readonly #peers = new WeakMap<Socket, SocketAddress>()
  /** The sockets below TLS of handshakes under way, the oldest first. */
  readonly #handshakes = new Set<Socket>()
  readonly #gaveWay = new WeakSet<Socket>()
  #isClosed = false

  /** Serves the listening descriptor, which is its own from here on. */
  constructor(
    fd: number,
    certificate: PodCertificate,
    context: PodContext,
    onSession: (session: ServerSession) => void,
  ) {
    this.#context = context
    this.#server = createServer(
      {
        ...contextOptions(certificate),
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ['h2'],
        handshakeTimeout: context.options.handshakeTimeoutMs,
        noDelay: true,
        allowHalfOpen: true,
        highWaterMark: TRANSPORT_BUFFER,
      } as never,
      socket => {
        socket.on('error', ignore) // the session listens too; this one is there before it
        this.#handshakes.delete(below(socket)!)
        if (this.#isClosed) {
          socket.destroy() // the pod has left while hands were shaken
          return
        }
        const session = acceptHbone(socket, context)
        if (session) onSession(session)
      },
    )
    this.#server.on('connection', raw => this.#begun(raw))
    this.#server.on('tlsClientError', (err, socket) => this.#turnedAway(err, socket))
    this.#server.on('error', err =>
      context.log('error', 'listener failed', { pod: context.pod.name, err: errorText(err) }),
    )
    this.#server.listen({ fd, backlog: BACKLOG })
  }

  /** Handshakes from here on present this certificate. */
  setCertificate(certificate: PodCertificate): void {
    this.#server.setSecureContext(contextOptions(certificate))
  }

  /** Stops accepting, handshakes that are under way included. */
  close(): void {
    this.#isClosed = true
    this.#server.close()
  }

  #begun(raw: Socket): void {
    const peer = peerOf(raw)
    if (peer) this.#peers.set(raw, peer)
    this.#handshakes.add(raw)
    raw.once('close', () => this.#handshakes.delete(raw))
    if (this.#handshakes.size <= MAX_HANDSHAKES) return
    const [oldest] = this.#handshakes
    this.#handshakes.delete(oldest!)
    this.#gaveWay.add(oldest!)
    reset(oldest!)
  }

  /** Told exactly once of each connection that does not become a session. */
  #turnedAway(err: Error, socket: TLSSocket): void {
    socket.on('error', ignore)
    const raw = below(socket)
    if (raw) this.#handshakes.delete(raw)
    const source = (raw && this.#peers.get(raw)) ?? peerOf(socket)
    const hasGivenWay = raw !== undefined && this.#gaveWay.has(raw)
    const isSilent = raw !== undefined && raw.bytesRead === 0 && raw.destroyed
    socket.destroy()
    // A peer that was gone before it said a word is a look at the port and not a connection.
    if (!source || (isSilent && !hasGivenWay)) return
    const { pod, book } = this.#context
    const connection = book.open({
      podUid: pod.uid,
      direction: 'inbound',
      source,
      destination: { workload: pod.name, namespace: pod.namespace, ip: pod.ips[0] ?? '', port: PORT.hbone },
    })
    const failure = hasGivenWay
      ? {
          error: `TLS handshake gave way: more than ${MAX_HANDSHAKES} under way`,
          errorCode: 'TOO_MANY_HANDSHAKES',
        }
      : handshakeFailure(err, socket)
    connection.close({ reason: 'tls', ...failure })
  }
}

/** The TCP socket that a TLS socket was made over. */
function below(socket: TLSSocket): Socket | undefined {
  return (socket as unknown as { _parent?: Socket })._parent
}

function ignore(): void {}
