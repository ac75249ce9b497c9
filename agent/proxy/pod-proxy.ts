/** One pod on one data-plane thread: its listeners, its certificate, its sessions. */
import type { Cancellation } from '../../lib/cancel.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { parseSpiffe } from '../../lib/spiffe.ts'
import { HbonePool } from '../hbone/pool.ts'
import type { ServerSession } from '../hbone/server.ts'
import { Listener, type Accepted } from '../io/listener.ts'
import type { TcpSocket } from '../io/tcp.ts'
import { closeFd } from '../sys/fd.ts'
import { setLinger } from '../sys/sockopt.ts'
import { TlsContext } from '../sys/tls-context.ts'
import type {
  AdmitDecision,
  AdmitQuestion,
  ConnectionRecord,
  Control,
  PodCertificate,
  PodListeners,
  PodPlane,
  RouteDecision,
} from '../worker/messages.ts'
import type { ConnectionBook } from './connection.ts'
import { dial, type DialTarget } from './dial.ts'
import { HboneListener } from './hbone-listener.ts'
import { KeptAnswers } from './kept-answers.ts'
import { acceptOutbound } from './outbound.ts'
import { acceptPlaintext } from './plaintext.ts'
import type { LogLine, PodContext, ProxyOptions } from './pod-context.ts'

export interface PodProxyParts {
  readonly options: ProxyOptions
  readonly control: Control
  readonly book: ConnectionBook
  readonly log: LogLine
}

/** Decisions kept per pod: a few destinations are most of the traffic. */
const KEPT_DECISIONS = 4096

export class PodProxy implements PodContext {
  /** Replaced once, when one that had to be served without a name has got it. */
  pod: PodPlane
  trustDomain: string
  readonly options: ProxyOptions
  readonly book: ConnectionBook
  readonly pool: HbonePool
  /** Connections made out of the pod's namespace so far. */
  dialled = 0
  readonly log: LogLine
  readonly #control: Control
  readonly #routes = new KeptAnswers<string, Promise<RouteDecision>>(KEPT_DECISIONS)
  readonly #admissions = new KeptAnswers<string, Promise<AdmitDecision>>(KEPT_DECISIONS)
  readonly #sessions = new Set<ServerSession>()
  readonly #plain: Listener[] = []
  #hbone: HboneListener | undefined
  #hboneFd: number | undefined
  #context: TlsContext | undefined
  readonly #contextWaiters = new Set<(context: TlsContext) => void>()
  /** Its namespace may be gone, and the descriptor be another's. */
  #hasLeft = false

  constructor(pod: PodPlane, parts: PodProxyParts) {
    this.pod = pod
    this.trustDomain = parseSpiffe(pod.identity)?.trustDomain ?? ''
    this.options = parts.options
    this.pool = new HbonePool(parts.options.pool)
    this.book = parts.book
    this.log = parts.log
    this.#control = parts.control
  }

  /** Somebody has told who the pod is; whoever waits for its certificate goes on waiting. */
  named(pod: PodPlane): void {
    this.pod = pod
    this.trustDomain = parseSpiffe(pod.identity)?.trustDomain ?? ''
  }

  /** Starts accepting. 15008 is served from the first certificate on; until then its connections wait in the kernel. */
  listen(listeners: PodListeners): void {
    this.#plain.push(
      this.#serve(listeners.outbound, (fd, peer) => acceptOutbound(fd, peer, this)),
      this.#serve(listeners.inbound, (fd, peer) => acceptPlaintext(fd, peer, this)),
    )
    this.#hboneFd = listeners.hbone
    this.#serveHbone()
  }

  /** New connections use it, open ones are not touched. */
  setCertificate(certificate: PodCertificate): void {
    this.#context = new TlsContext(certificate)
    this.#hbone?.setContext(this.#context)
    for (const take of this.#contextWaiters) take(this.#context)
    this.#contextWaiters.clear()
    this.#serveHbone()
  }

  invalidate(): void {
    this.#routes.clear()
    this.#admissions.clear()
  }

  /** Tells peers to open no more streams on the sessions they have. New sessions are still accepted. */
  goaway(): void {
    for (const session of this.#sessions) session.goaway()
  }

  /**
   * GOAWAY on the peers' sessions, then a drain; resolves with the connections that had to be cut. Its own sessions serve
   * what was accepted before until then.
   */
  async leave(deadlineMs: number): Promise<ConnectionRecord[]> {
    this.#unlisten()
    for (const session of this.#sessions) session.goaway()
    const cut = await this.book.drain(deadlineMs, this.pod.uid)
    this.#hasLeft = true
    this.pool.destroy()
    for (const session of this.#sessions) session.destroy()
    return cut
  }

  dial(target: DialTarget, signal: Cancellation): Promise<TcpSocket> {
    if (this.#hasLeft) return Promise.reject(new CulvertError('CLOSED', 'the pod has left the mesh'))
    this.dialled++
    return dial(this.pod.netnsFd, target, this.options.connectTimeoutMs, signal)
  }

  route(ip: string, port: number): Promise<RouteDecision> {
    const key = `${ip}|${port}`
    return this.#routes.getOrAsk(key, () => this.#control.route({ podUid: this.pod.uid, ip, port }))
  }

  admit(question: Omit<AdmitQuestion, 'podUid'>): Promise<AdmitDecision> {
    if (question.sourcePort !== undefined) return this.#control.admit({ podUid: this.pod.uid, ...question })
    const key = `${question.sourceIp}|${question.identity ?? ''}|${question.ip}|${question.port}`
    return this.#admissions.getOrAsk(key, () => this.#control.admit({ podUid: this.pod.uid, ...question }))
  }

  tlsContext(signal: Cancellation): Promise<TlsContext> {
    if (this.#context) return Promise.resolve(this.#context)
    return new Promise((resolve, reject) => {
      this.#contextWaiters.add(resolve)
      const giveUp = () => {
        this.#contextWaiters.delete(resolve)
        reject(
          new CulvertError(
            'CA',
            `no certificate for ${this.pod.identity || 'a pod whose service account is not known'} yet`,
            {
              hint: 'look at the ca-server and at GET /certificates',
            },
          ),
        )
      }
      signal.addEventListener('abort', giveUp, { once: true })
    })
  }

  #serve(fd: number, accept: Accepted): Listener {
    setLinger(fd, 0) // which those that are accepted from it inherit: `resetOnClose`
    return new Listener(fd, accept, err =>
      this.log('error', 'listener failed', { pod: this.pod.name, err: errorText(err) }),
    )
  }

  /** Stops accepting; what is open goes on. */
  #unlisten(): void {
    for (const listener of this.#plain.splice(0)) listener.close()
    this.#hbone?.close()
    this.#hbone = undefined
    if (this.#hboneFd !== undefined) closeFd(this.#hboneFd)
    this.#hboneFd = undefined
  }

  #serveHbone(): void {
    if (this.#hboneFd === undefined || this.#context === undefined || this.#hbone) return
    const fd = this.#hboneFd
    this.#hboneFd = undefined // the server owns it now
    this.#hbone = new HboneListener(fd, this.#context, this, session => {
      this.#sessions.add(session)
      session.onClosed(() => this.#sessions.delete(session))
    })
  }
}
