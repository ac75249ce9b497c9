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
import type { Enrolment } from '../../lib/enrolment.ts'
import { errorText } from '../../lib/errors.ts'
import { netnsInode } from '../sys/netns.ts'
import { Capture } from './capture.ts'
import type { Beginning, LifeParts } from './life-parts.ts'
import { PodLifeState, type LifeStatus } from './life-state.ts'
import { Lingering } from './lingering.ts'
import { Reconciler } from './reconciler.ts'
import { ServedPod } from './served.ts'
import type { LocalPod, Patience, Safety } from './source.ts'
import { clearRemains } from './remains.ts'
import type { StrictPod } from './open-plaintext.ts'
import { openVerified } from './verify.ts'

type Wish =
  { readonly kind: 'in'; readonly enrolment: Enrolment } | { readonly kind: 'out' | 'wait' | 'gone' }

/** So long the connections of a pod wait to hear who it is, unless it is said otherwise. */
const UNNAMED_AFTER_MS = 5000

const ACCOUNT_AWAITED = 'waiting for discovery to tell its service account'

export class PodLife {
  #pod: LocalPod
  #capture: Capture
  #beginning: Beginning
  /** Rules and listeners of an agent before this one. */
  #mayHaveRemains: boolean
  #isTerminating = false
  #unnamedTimer: NodeJS.Timeout | undefined
  #isUnnamedTooLong = false
  #drainMs = 0
  readonly #state: PodLifeState
  readonly #served: ServedPod
  readonly #lingering: Lingering
  readonly #reconciler: Reconciler<Wish>
  readonly #parts: LifeParts

  constructor(pod: LocalPod, parts: LifeParts, beginning: Beginning) {
    this.#pod = pod
    this.#parts = parts
    this.#capture = new Capture(pod.uid, parts)
    this.#served = new ServedPod(pod.uid, parts)
    this.#state = new PodLifeState(pod, parts, beginning === 'adopted')
    this.#beginning = beginning
    this.#mayHaveRemains = beginning === 'adopted'
    this.#lingering = new Lingering({
      served: this.#served,
      name: this.#state.name,
      log: parts.log,
      isBack: () => this.netnsFd !== undefined || this.#wish.kind === 'in',
      release: () => this.#release(),
    })
    this.#reconciler = new Reconciler<Wish>(
      { kind: 'wait' },
      { step: (wish, signal) => this.#step(wish, signal), failed: err => this.#failed(err) },
    )
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
    return this.#reconciler.settled
  }

  get netnsFd(): number | undefined {
    return this.#capture.netnsFd
  }

  /** An agent before this one had it in the mesh. */
  get isAdopted(): boolean {
    return this.#beginning === 'adopted'
  }

  /** Undefined where it is not strict. */
  get strictPod(): StrictPod | undefined {
    return this.#capture.strictPod(this.pod)
  }

  get enrolment(): Enrolment | undefined {
    return this.#capture.enrolment
  }

  /** The source tells of it anew. */
  told(pod: LocalPod): void {
    const before = this.#pod
    this.#pod = pod
    if (before.netns !== pod.netns) this.#capture.told(pod)
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
    if (this.enrolment || state === 'not-enrolled' || state === 'gone') return 'safe'
    return this.#wish.kind === 'wait' ? 'unknown' : 'late'
  }

  /** Peers hear as soon as somebody says that it ends. */
  #part(isEnding = this.#parts.isTerminating(this.#pod)): void {
    if (isEnding && !this.#isTerminating) this.#served.goaway()
    this.#isTerminating ||= isEnding
  }

  get #wish(): Wish {
    return this.#reconciler.wish
  }

  #aim(wish: Wish): Promise<void> {
    return this.#wish.kind === 'gone' ? this.settled : this.#reconciler.aim(wish)
  }

  #failed(err: unknown): void {
    const text = errorText(err)
    this.#state.lack(text)
    this.#parts.log.warn({ pod: this.#state.name, err: text }, 'pod not as it should be; trying again')
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
    if (!(await this.#stand(enrolment, signal))) return
    if (!this.#served.isServed) {
      this.#state.lack(`captured; ${ACCOUNT_AWAITED}`)
      this.#unnamedTimer ??= setTimeout(() => {
        this.#isUnnamedTooLong = true
        if (this.#wish.kind === 'in') void this.#aim(this.#wish)
      }, this.#parts.unnamedAfterMs ?? UNNAMED_AFTER_MS).unref()
      return
    }
    if (!certificates.certificate(uid)) this.#state.lack('captured; waiting for a certificate')
    this.#reconciler.settle(signal) // protected: nothing passes in the clear any more
    await certificates.ready(uid, signal)
    this.#state.be('enrolled', this.#remarks())
  }

  /** Sockets, threads and rules. Reports whether they stand; where not, somebody has something to tell first. */
  async #stand(enrolment: Enrolment, signal: AbortSignal): Promise<boolean> {
    const netnsFd = this.netnsFd ?? (await this.#open(enrolment, signal))
    if (netnsFd === undefined) return false
    await this.#served.serve(this.pod, netnsFd, this.#isUnnamedTooLong)
    if (await this.#capture.apply(netnsFd, enrolment, this.pod)) this.#state.tell()
    return true
  }

  /** Its namespace, with listening sockets in it; undefined when it is to wait outside. */
  async #open(enrolment: Enrolment, signal: AbortSignal): Promise<number | undefined> {
    const lingering = this.#lingering.end()
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
      this.#capture.take(netnsFd)
      return netnsFd
    } finally {
      if (this.netnsFd === undefined && lingering !== undefined) this.#lingering.begin(lingering)
      else if (this.netnsFd === undefined) closeSync(netnsFd)
    }
  }

  /** The runtime has given the pod another sandbox: what was in the first one's namespace is over, and it begins anew. */
  async #followNamespace(): Promise<void> {
    const netnsFd = this.netnsFd ?? this.#lingering.netnsFd
    if (netnsFd === undefined || !isOther(this.pod.netns, netnsFd)) return
    this.#parts.log.info(
      { pod: this.#state.name, netns: this.pod.netns },
      'pod has another network namespace now',
    )
    this.#capture.abandon()
    this.#lingering.end()
    this.#capture = new Capture(this.pod.uid, this.#parts)
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
    const netnsFd = await this.#capture.remove()
    if (netnsFd === undefined) await this.#clearRemains()
    else this.#lingering.begin(netnsFd)
    this.#state.be('not-enrolled', '')
  }

  /** The agent stops, and nothing is open any more: what a pod was still kept for that has left the mesh is over. Never rejects. */
  async clearAway(): Promise<void> {
    if (this.#wish.kind === 'out') await this.settled
    await this.#lingering.over()
  }

  /** A pod that is not enrolled, but was when an agent before this one ran here. */
  async #clearRemains(): Promise<void> {
    if (this.#mayHaveRemains) await clearRemains(this.pod, this.#parts.keeper)
    this.#mayHaveRemains = false
  }

  async #vanish(): Promise<void> {
    clearTimeout(this.#unnamedTimer)
    const netnsFd = this.#capture.abandon() ?? this.#lingering.end()
    await this.#served.end(this.#drainMs)
    this.#release()
    this.#state.be('gone', '')
    if (netnsFd !== undefined) closeSync(netnsFd)
  }

  #release(): void {
    this.#parts.certificates.release(this.pod.uid)
    this.#parts.router.removeLocalPod(this.pod.uid)
  }

  /** What is to be said of one that is enrolled. */
  #remarks(): string {
    const { caveat } = this.pod
    return [...(this.enrolment?.problems ?? []), ...(caveat === undefined ? [] : [caveat])].join('; ')
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
