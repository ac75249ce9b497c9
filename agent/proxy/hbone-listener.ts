/**
 * The tunnel port of one pod: TLS handshakes, bounded in number and time, and a record of each that fails. Whoever
 * can reach the pod can begin one; it must cost neither the memory nor the descriptors of the other pods.
 */
import type { SocketAddress } from '../../lib/address.ts'
import { errorCode, errorText } from '../../lib/errors.ts'
import type { ServerSession } from '../hbone/server.ts'
import { Listener } from '../io/listener.ts'
import { TlsSocket } from '../io/tls-socket.ts'
import { PORT } from '../ports.ts'
import { TlsFailure } from '../sys/tls-channel.ts'
import type { TlsContext } from '../sys/tls-context.ts'
import { acceptHbone } from './inbound.ts'
import type { PodContext } from './pod-context.ts'

/**
 * Handshakes under way at once; the oldest gives way to the next. One costs about 60 KB, and an honest one is over in
 * milliseconds: the oldest of so many is somebody who keeps silent.
 */
export const MAX_HANDSHAKES = 1024

/** What ended a handshake that this side gave up. */
type GivenUp = 'late' | 'gave-way' | 'closed'

interface Handshake {
  readonly socket: TlsSocket
  readonly timer: NodeJS.Timeout
  givenUp: GivenUp | undefined
}

export class HboneListener {
  readonly #listener: Listener
  readonly #context: PodContext
  readonly #onSession: (session: ServerSession) => void
  #tls: TlsContext
  /** The oldest first. */
  readonly #handshakes = new Set<Handshake>()
  #isClosed = false

  /** Serves the listening descriptor, which is its own from here on. */
  constructor(fd: number, tls: TlsContext, context: PodContext, onSession: (session: ServerSession) => void) {
    this.#tls = tls
    this.#context = context
    this.#onSession = onSession
    this.#listener = new Listener(
      fd,
      (accepted, peer) => this.#begin(accepted, peer),
      err => context.log('error', 'listener failed', { pod: context.pod.name, err: errorText(err) }),
    )
  }

  /** Handshakes from here on present this certificate. */
  setContext(tls: TlsContext): void {
    this.#tls = tls
  }

  /** Stops accepting, handshakes that are under way included. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#listener.close()
    for (const handshake of this.#handshakes) this.#giveUp(handshake, 'closed')
  }

  #begin(fd: number, peer: SocketAddress): void {
    const socket = new TlsSocket(fd, this.#tls, 'server')
    const timer = setTimeout(() => this.#giveUp(handshake, 'late'), this.#context.options.handshakeTimeoutMs)
    const handshake: Handshake = { socket, timer, givenUp: undefined }
    this.#handshakes.add(handshake)
    socket.secured.then(
      () => {
        this.#settle(handshake)
        // Given up in the very batch of events that brought its end.
        if (handshake.givenUp) return this.#turnedAway(undefined, handshake, peer)
        const session = acceptHbone(socket, this.#context)
        if (session) this.#onSession(session)
      },
      (err: unknown) => {
        this.#settle(handshake)
        this.#turnedAway(err, handshake, peer)
      },
    )
    if (this.#handshakes.size <= MAX_HANDSHAKES) return
    const [oldest] = this.#handshakes
    this.#giveUp(oldest!, 'gave-way')
  }

  #settle(handshake: Handshake): void {
    clearTimeout(handshake.timer)
    this.#handshakes.delete(handshake)
  }

  #giveUp(handshake: Handshake, why: GivenUp): void {
    handshake.givenUp = why
    this.#settle(handshake)
    handshake.socket.reset()
  }

  #turnedAway(err: unknown, { givenUp }: Handshake, source: SocketAddress): void {
    // A peer that was gone before it said a word is a look at the port and not a connection.
    const isLook = err instanceof TlsFailure && err.isSilent && givenUp !== 'gave-way' && givenUp !== 'late'
    if (isLook || givenUp === 'closed') return
    const { pod, book, options } = this.#context
    const connection = book.open({
      podUid: pod.uid,
      direction: 'inbound',
      source,
      destination: { workload: pod.name, namespace: pod.namespace, ip: pod.ips[0] ?? '', port: PORT.hbone },
    })
    connection.close({ reason: 'tls', ...failureOf(err, givenUp, options.handshakeTimeoutMs) })
  }
}

/** For a log line: what was wrong with the certificate (`CERT_HAS_EXPIRED`, …), or what OpenSSL says. */
function failureOf(
  err: unknown,
  givenUp: GivenUp | undefined,
  limitMs: number,
): { error: string; errorCode: string | undefined } {
  if (givenUp === 'gave-way')
    return {
      error: `TLS handshake gave way: more than ${MAX_HANDSHAKES} under way`,
      errorCode: 'TOO_MANY_HANDSHAKES',
    }
  if (givenUp === 'late')
    return {
      error: `TLS handshake timeout: not done within ${limitMs} ms`,
      errorCode: 'ERR_TLS_HANDSHAKE_TIMEOUT',
    }
  const code = errorCode(err)
  if (err instanceof TlsFailure && err.isAboutCertificate)
    return { error: `client certificate not accepted: ${code}`, errorCode: code }
  return { error: `TLS handshake failed: ${errorText(err)}`, errorCode: code }
}
