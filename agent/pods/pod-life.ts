/**
 * One pod from the moment it is heard of until it is gone: captured, certified, reported, un-enrolled. What is wanted
 * may change at any time; one loop at a time moves the pod there, step by step, and tries again what failed. Order:
 * - in:  certificate asked for → listeners stand → rules → reported. Rules never point at a port nobody listens on.
 *   Whose service account nobody knows yet is captured all the same: its connections wait until discovery tells, or until
 *   that has taken too long.
 * - out: rules → reported → listeners. These stay a while: for what the rules sent to them and nobody has accepted
 *   yet, and for peers that have not heard. Open connections stay as long as they live, and with them the return
 *   path they need.
 */
import { closeSync } from 'node:fs'
import { Backoff } from '../../lib/backoff.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import { errorText } from '../../lib/errors.ts'
import { applyRedirect, removeReturnPath, removeRedirect } from '../redirect/apply.ts'
import { netnsInode } from '../sys/netns.ts'
import type { Beginning, LifeParts } from './life-parts.ts'
import { PodLifeState, type LifeStatus } from './life-state.ts'
import { ServedPod } from './served.ts'
import type { LocalPod, Patience, Safety } from './source.ts'
import { clearRemains } from './remains.ts'
import { endOrTell, type StrictPod } from './open-plaintext.ts'
import { openVerified } from './verify.ts'

type Wish =
  { readonly kind: 'in'; readonly enrolment: Enrolment } | { readonly kind: 'out' | 'wait' | 'gone' }

/** Peers that have not heard of an un-enrolment yet still come to 15008 for this long. All listeners stand till then. */
const STRAGGLERS_MS = 30_000
/** Connections of a pod that left the mesh may stay open: as long as a timer can say. */
const AS_LONG_AS_THEY_LIVE_MS = 0x7fff_ffff
/** So long the connections of a pod wait to hear who it is, unless it is said otherwise. */
const UNNAMED_AFTER_MS = 5000

const ACCOUNT_AWAITED = 'waiting for discovery to tell its service account'

export class PodLife {
  #pod: LocalPod
  #wish: Wish = { kind: 'wait' }
  #isMoving = false
  #settled: PromiseWithResolvers<void> = Promise.withResolvers()
  #interrupt = new AbortController()
  /** Open while the pod is in the mesh. */
  #netnsFd: number | undefined
  #applied: Enrolment | undefined
  /** It has left the mesh, and what it was kept for until now is taken away. */
  #lettingGo: Promise<void> = Promise.resolve()
  /** It has left the mesh, and its listeners are still served. */
  #lingering: { readonly netnsFd: number; readonly timer: NodeJS.Timeout } | undefined
  #beginning: Beginning
  /** Rules and listeners of an agent before this one. */
  #mayHaveRemains: boolean
  #isTerminating = false
  #unnamedTimer: NodeJS.Timeout | undefined
  #isUnnamedTooLong = false
  #drainMs = 0
  readonly #state: PodLifeState
  readonly #served: ServedPod
  readonly #parts: LifeParts

  constructor(pod: LocalPod, parts: LifeParts, beginning: Beginning) {
    this.#pod = pod
    this.#parts = parts
    this.#served = new ServedPod(pod.uid, parts)
    this.#state = new PodLifeState(pod, parts, beginning === 'adopted')
    this.#beginning = beginning
    this.#mayHaveRemains = beginning === 'adopted'
  }

  get pod(): LocalPod {
    return this.#pod
  }

  get status(): LifeStatus {
    return this.#state.now
  }

  /** Undefined until somebody has told. */
  get serviceAccount(): string | undefined {
    return this.#served.serviceAccount ?? this.#parts.serviceAccountOf(this.pod)
  }

  /** Ends when what is wanted now is so, or as near as can be. */
  get settled(): Promise<void> {
    return this.#settled.promise
  }

  get netnsFd(): number | undefined {
    return this.#netnsFd
  }

  /** An agent before this one had it in the mesh. */
  get isAdopted(): boolean {
    return this.#beginning === 'adopted'
  }

  /** Undefined where it is not strict. */
  get strictPod(): StrictPod | undefined {
    const { uid, namespace, name, ips } = this.pod
    const [netnsFd, applied] = [this.#netnsFd, this.#applied]
    if (netnsFd === undefined || !applied?.strictInbound) return undefined
    return { uid, namespace, name, ips, netnsFd, excludeInboundPorts: applied.excludeInboundPorts }
  }

  get enrolment(): Enrolment | undefined {
    return this.#applied
  }

  /** The source tells of it anew. */
  told(pod: LocalPod): void {
    const before = this.#pod
    this.#pod = pod
    if (this.#applied && before.netns !== pod.netns) this.#parts.guard.update(pod.uid, this.#applied, pod)
  }

  /** What should be; undefined while the namespace's annotations are not known. Resolves when it is so, or as near as can be. */
  want(enrolment: Enrolment | undefined): Promise<void> {
    this.#part()
    return this.#aim(
      enrolment === undefined
        ? { kind: 'wait' }
        : enrolment.mesh
          ? { kind: 'in', enrolment }
          : { kind: 'out' },
    )
  }

  /** The pod is gone: what is still open of it is cut after so long, and everything is given back. */
  end(drainMs: number): Promise<void> {
    this.#drainMs = drainMs
    this.#part(true)
    return this.#aim({ kind: 'gone' })
  }

  /** Waits until nothing of it can pass in the clear that should not. */
  async safe({ withinMs, unknownMs }: Patience): Promise<Safety> {
    const startMs = performance.now()
    for (;;) {
      const safety = this.#safety()
      if (safety === 'safe') return safety
      const leftMs = startMs + (safety === 'unknown' ? unknownMs : withinMs) - performance.now()
      if (leftMs <= 0) return safety
      await this.#state.changed(leftMs)
    }
  }

  /** The guard found something changed (`detail` not empty), or everything in order again. */
  drifted(detail: string): void {
    const { state } = this.status
    if (detail && state === 'enrolled') this.#state.be('drifted', detail)
    else if (!detail && state === 'drifted') this.#state.be('enrolled', this.#remarks())
  }

  #safety(): Safety {
    const { state } = this.status
    if (this.#applied || state === 'not-enrolled' || state === 'gone') return 'safe'
    return this.#wish.kind === 'wait' ? 'unknown' : 'late'
  }

  /** Peers hear as soon as somebody says that it ends. */
  #part(isEnding = this.#parts.isTerminating(this.#pod)): void {
    if (isEnding && !this.#isTerminating) this.#served.goaway()
    this.#isTerminating ||= isEnding
  }

  #aim(wish: Wish): Promise<void> {
    if (this.#wish.kind === 'gone') return this.#settled.promise
    this.#wish = wish
    this.#interrupt.abort()
    this.#interrupt = new AbortController()
    if (!this.#isMoving) {
      this.#settled = Promise.withResolvers()
      this.#isMoving = true
      void this.#move()
    }
    return this.#settled.promise
  }

  async #move(): Promise<void> {
    const backoff = new Backoff({ firstMs: 100, maxMs: 5000 })
    for (;;) {
      const wish = this.#wish
      const signal = this.#interrupt.signal
      try {
        await this.#step(wish, signal)
        if (wish === this.#wish) break
        backoff.reset()
      } catch (err) {
        if (wish !== this.#wish) continue
        this.#state.lack(errorText(err))
        this.#parts.log.warn(
          { pod: this.#state.name, err: errorText(err) },
          'pod not as it should be; trying again',
        )
        this.#settled.resolve() // as near as can be for now
        await backoff.wait(signal)
      }
    }
    this.#isMoving = false
    this.#settled.resolve()
  }

  async #step(wish: Wish, signal: AbortSignal): Promise<void> {
    switch (wish.kind) {
      case 'wait':
        this.#state.be('unknown', `annotations of namespace ${this.pod.namespace} are not known yet`)
        return
      case 'in':
        return this.#enter(wish.enrolment, signal)
      case 'out':
        return this.#leave()
      case 'gone':
        return this.#vanish()
    }
  }

  async #enter(enrolment: Enrolment, signal: AbortSignal): Promise<void> {
    const { certificates, router } = this.#parts
    const { uid } = this.pod
    await this.#followNamespace()
    router.setLocalPod(this.pod, enrolment)
    this.#mayHaveRemains = false // they are its own from here on
    const { serviceAccount } = this
    if (serviceAccount !== undefined) this.#served.identify(this.pod, serviceAccount)
    if (!(await this.#capture(enrolment, signal))) return
    if (!this.#served.isServed) {
      this.#state.lack(`captured; ${ACCOUNT_AWAITED}`)
      this.#unnamedTimer ??= setTimeout(() => {
        this.#isUnnamedTooLong = true
        if (this.#wish.kind === 'in') void this.#aim(this.#wish)
      }, this.#parts.unnamedAfterMs ?? UNNAMED_AFTER_MS).unref()
      return
    }
    if (!certificates.certificate(uid)) this.#state.lack('captured; waiting for a certificate')
    this.#settled.resolve() // protected: nothing passes in the clear any more
    await certificates.ready(uid, signal)
    this.#state.be('enrolled', this.#remarks())
  }

  /** Sockets, threads and rules. Reports whether they stand; where not, somebody has something to tell first. */
  async #capture(enrolment: Enrolment, signal: AbortSignal): Promise<boolean> {
    const { guard } = this.#parts
    const netnsFd = this.#netnsFd ?? (await this.#open(enrolment, signal))
    if (netnsFd === undefined) return false
    await this.#served.serve(this.pod, netnsFd, this.#isUnnamedTooLong)
    if (this.#applied === enrolment) return true
    await applyRedirect(netnsFd, enrolment)
    if (this.#applied) guard.update(this.pod.uid, enrolment, this.pod)
    else guard.watch(this.pod.uid, netnsFd, enrolment, this.pod)
    const wasStrict = this.#applied?.strictInbound === true
    this.#applied = enrolment
    this.#state.tell()
    if (enrolment.strictInbound && !wasStrict) void this.#lookForPlaintext(enrolment)
    return true
  }

  /** Strict has begun: what came in plaintext before is listed, or cut. Never throws. */
  async #lookForPlaintext({ cutOpen }: Enrolment): Promise<void> {
    const pod = this.strictPod
    if (pod) await endOrTell(pod, cutOpen, this.#parts.threads, this.#parts.log)
  }

  /** Its namespace, with listening sockets in it; undefined when it is to wait outside. */
  async #open(enrolment: Enrolment, signal: AbortSignal): Promise<number | undefined> {
    const lingering = this.#endLingering()
    const netnsFd = lingering ?? openVerified(this.pod)
    try {
      const mayWait = this.#beginning === 'running' && !enrolment.strictInbound && !enrolment.requireOutbound
      if (mayWait && this.#served.serviceAccount === undefined) {
        this.#state.be('pending', `${ACCOUNT_AWAITED}; not captured yet`)
        return undefined
      }
      if (mayWait) {
        this.#state.be('pending', 'waiting for a certificate; not captured yet')
        await this.#parts.certificates.ready(this.pod.uid, signal)
      }
      // One that still lingers is what it was: its sessions and its listeners go on.
      if (lingering === undefined) await this.#served.stand(netnsFd)
      return (this.#netnsFd = netnsFd)
    } finally {
      if (this.#netnsFd === undefined && lingering !== undefined) this.#linger(lingering)
      else if (this.#netnsFd === undefined) closeSync(netnsFd)
    }
  }

  /** The runtime has given the pod another sandbox: what was in the first one's namespace is over, and it begins anew. */
  async #followNamespace(): Promise<void> {
    const netnsFd = this.#netnsFd ?? this.#lingering?.netnsFd
    if (netnsFd === undefined || !isOther(this.pod.netns, netnsFd)) return
    this.#parts.log.info(
      { pod: this.#state.name, netns: this.pod.netns },
      'pod has another network namespace now',
    )
    this.#parts.guard.unwatch(this.pod.uid)
    this.#endLingering()
    this.#netnsFd = undefined
    this.#applied = undefined
    this.#beginning = 'new'
    try {
      await this.#served.end(0)
    } finally {
      closeSync(netnsFd)
    }
  }

  async #leave(): Promise<void> {
    // It goes on by itself from here: should it come in one day, its connections do not wait for its certificate.
    if (this.#beginning === 'new') this.#beginning = 'running'
    const netnsFd = this.#netnsFd
    if (netnsFd === undefined) {
      await this.#clearRemains()
    } else {
      this.#parts.guard.unwatch(this.pod.uid)
      this.#applied = undefined
      await removeRedirect(netnsFd, { keepReturnPath: true })
      this.#netnsFd = undefined
      this.#linger(netnsFd)
    }
    this.#state.be('not-enrolled', '')
  }

  #linger(netnsFd: number): void {
    const timer = setTimeout(() => {
      this.#lettingGo = this.#letGo(netnsFd)
    }, STRAGGLERS_MS).unref()
    this.#lingering = { netnsFd, timer }
  }

  /** Gives the namespace's descriptor if the listeners were still served; it is the caller's then. */
  #endLingering(): number | undefined {
    const { netnsFd, timer } = this.#lingering ?? {}
    clearTimeout(timer)
    this.#lingering = undefined
    return netnsFd
  }

  /** The agent stops, and nothing is open any more: what a pod was still kept for that has left the mesh is over. Never rejects. */
  async clearAway(): Promise<void> {
    if (this.#wish.kind === 'out') await this.settled
    const netnsFd = this.#endLingering()
    if (netnsFd !== undefined) this.#lettingGo = this.#letGo(netnsFd)
    await this.#lettingGo
  }

  /** A pod that is not enrolled, but was when an agent before this one ran here. */
  async #clearRemains(): Promise<void> {
    if (this.#mayHaveRemains) await clearRemains(this.pod, this.#parts.keeper)
    this.#mayHaveRemains = false
  }

  /** No more stragglers: the listeners close, and when the last open connection has ended, all of it is given back. */
  async #letGo(netnsFd: number): Promise<void> {
    const { certificates, router, log } = this.#parts
    const { uid } = this.pod
    this.#lingering = undefined
    try {
      await this.#served.end(AS_LONG_AS_THEY_LIVE_MS)
      // It may be on its way back in, or there already.
      if (this.#netnsFd === undefined && this.#wish.kind !== 'in') {
        await removeReturnPath(netnsFd)
        certificates.release(uid)
        router.removeLocalPod(uid)
      }
    } catch (err) {
      log.warn(
        { pod: this.#state.name, err: errorText(err) },
        'could not clear up after a pod that left the mesh',
      )
    } finally {
      closeSync(netnsFd)
    }
  }

  async #vanish(): Promise<void> {
    const { guard, certificates, router } = this.#parts
    const { uid } = this.pod
    guard.unwatch(uid)
    clearTimeout(this.#unnamedTimer)
    const netnsFd = this.#netnsFd ?? this.#endLingering()
    this.#netnsFd = undefined
    await this.#served.end(this.#drainMs)
    certificates.release(uid)
    router.removeLocalPod(uid)
    this.#state.be('gone', '')
    if (netnsFd !== undefined) closeSync(netnsFd)
  }

  /** What is to be said of one that is enrolled. */
  #remarks(): string {
    const { caveat } = this.pod
    return [...(this.#applied?.problems ?? []), ...(caveat === undefined ? [] : [caveat])].join('; ')
  }
}

/** Reports whether the path leads to another namespace than the descriptor; not so while it leads nowhere. */
function isOther(netns: string, netnsFd: number): boolean {
  try {
    return netnsInode(netns) !== netnsInode(netnsFd)
  } catch {
    return false
  }
}
