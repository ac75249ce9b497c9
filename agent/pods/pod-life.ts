/**
 * One pod from the moment it is heard of until it is gone: captured, certified, reported, un-enrolled. What is wanted
 * may change at any time; one loop at a time moves the pod there, step by step, and tries again what failed. Order:
 * - in:  certificate asked for → listeners stand → rules → reported. Rules never point at a port nobody listens on.
 * - out: reported → rules → listeners. These stay a while: for what the rules sent to them and nobody has accepted
 *   yet, and for peers that have not heard. Open connections stay as long as they live, and with them the return
 *   path they need.
 */
import { closeSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { canonicalIp } from '../../lib/address.ts'
import { Backoff } from '../../lib/backoff.ts'
import type { Enrolment } from '../../lib/enrolment.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { formatSpiffe } from '../../lib/spiffe.ts'
import type { CertificateManager } from '../identity/manager.ts'
import { PodState, type ReportClient } from '../identity/report-client.ts'
import type { Router } from '../mesh/router.ts'
import { applyRedirect, removeReturnPath, removeRedirect } from '../redirect/apply.ts'
import { inNetns, openNetns } from '../sys/netns.ts'
import type { DataPlaneThreads } from '../worker/threads.ts'
import type { RedirectGuard } from './guard.ts'
import type { ListenerKeeper } from './listeners.ts'
import type { LocalPod } from './source.ts'

/** What a pod's life needs of the rest of the agent. */
export interface LifeParts {
  readonly threads: DataPlaneThreads
  readonly keeper: ListenerKeeper
  readonly certificates: CertificateManager
  readonly router: Router
  readonly reports: ReportClient
  readonly guard: RedirectGuard
  readonly log: Logger
  readonly trustDomain: string
}

export type LifeState = 'unknown' | 'pending' | 'enrolled' | 'drifted' | 'not-enrolled' | 'gone'

export interface LifeStatus {
  readonly state: LifeState
  readonly detail: string
  readonly sinceMs: number
}

/**
 * How the pod was found. `running`: it has been going on without us, and is captured when its certificate is there.
 * `new`: it has not begun to run; nothing of it may pass in the clear. `adopted`: an agent before this one had it.
 */
export type Beginning = 'running' | 'new' | 'adopted'

type Wish =
  { readonly kind: 'in'; readonly enrolment: Enrolment } | { readonly kind: 'out' | 'wait' | 'gone' }

/** Peers that have not heard of an un-enrolment yet still come to 15008 for this long. All listeners stand till then. */
const STRAGGLERS_MS = 30_000
/** Connections of a pod that left the mesh may stay open: as long as a timer can say. */
const AS_LONG_AS_THEY_LIVE_MS = 0x7fff_ffff

const REPORTED: Record<LifeState, PodState | undefined> = {
  unknown: PodState.PENDING,
  pending: PodState.PENDING,
  enrolled: PodState.ENROLLED,
  drifted: PodState.DRIFTED,
  'not-enrolled': PodState.NOT_ENROLLED,
  gone: undefined,
}

export class PodLife {
  pod: LocalPod
  #status: LifeStatus = { state: 'unknown', detail: 'heard of', sinceMs: Date.now() }
  #wish: Wish = { kind: 'wait' }
  #isMoving = false
  #settled: PromiseWithResolvers<void> = Promise.withResolvers()
  #interrupt = new AbortController()
  /** Open while the pod is in the mesh. */
  #netnsFd: number | undefined
  #applied: Enrolment | undefined
  /** It has left the mesh, and its listeners are still served. */
  #lingering: { readonly netnsFd: number; readonly timer: NodeJS.Timeout } | undefined
  #beginning: Beginning
  /** Rules and listeners of an agent before this one. */
  #mayHaveRemains: boolean
  /** Peers tunnel to it: nothing said of it from now on may make them stop, short of leaving the mesh. */
  #hasBeenIn: boolean
  readonly #parts: LifeParts

  constructor(pod: LocalPod, parts: LifeParts, beginning: Beginning) {
    this.pod = pod
    this.#parts = parts
    this.#beginning = beginning
    this.#hasBeenIn = beginning === 'adopted'
    this.#mayHaveRemains = beginning === 'adopted'
  }

  get status(): LifeStatus {
    return this.#status
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

  get enrolment(): Enrolment | undefined {
    return this.#applied
  }

  /** What should be; undefined while the namespace's annotations are not known. Resolves when it is so, or as near as can be. */
  want(enrolment: Enrolment | undefined): Promise<void> {
    return this.#aim(
      enrolment === undefined
        ? { kind: 'wait' }
        : enrolment.mesh
          ? { kind: 'in', enrolment }
          : { kind: 'out' },
    )
  }

  /** The pod is gone: everything of it is cut and given back. */
  end(): Promise<void> {
    return this.#aim({ kind: 'gone' })
  }

  /** The guard found something changed (`detail` not empty), or everything in order again. */
  drifted(detail: string): void {
    if (detail && this.#status.state === 'enrolled') this.#be('drifted', detail)
    else if (!detail && this.#status.state === 'drifted') this.#be('enrolled', '')
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
        this.#be(this.#hasBeenIn ? 'drifted' : 'pending', errorText(err))
        this.#parts.log.warn(
          { pod: this.#name, err: errorText(err) },
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
        this.#be('unknown', `annotations of namespace ${this.pod.namespace} are not known yet`)
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
    const { certificates, keeper, threads, router, guard, trustDomain } = this.#parts
    const { uid } = this.pod
    router.setLocalPod(this.pod, enrolment)
    this.#mayHaveRemains = false // they are its own from here on
    if (this.#netnsFd !== undefined) {
      if (this.#applied !== enrolment) {
        await applyRedirect(this.#netnsFd, enrolment)
        this.#applied = enrolment
        guard.watch(uid, this.#netnsFd, enrolment, this.pod)
      }
      await this.#certified(signal)
      this.#be('enrolled', enrolment.problems.join('; '))
      return
    }
    const lingering = this.#endLingering()
    const netnsFd = lingering ?? openVerified(this.pod)
    try {
      const identity = formatSpiffe(trustDomain, this.pod.namespace, this.pod.serviceAccount)
      const { namespace, name, serviceAccount, ips } = this.pod
      certificates.hold({ uid, identity })
      const mayWait = this.#beginning === 'running' && !enrolment.strictInbound && !enrolment.requireOutbound
      if (mayWait) {
        this.#be('pending', 'waiting for a certificate; not captured yet')
        await certificates.ready(uid, signal)
      }
      // One that still lingers is what it was: its sessions and its listeners go on.
      if (lingering === undefined) {
        const sets = await Promise.all(
          Array.from({ length: threads.count }, () => keeper.acquire(uid, netnsFd)),
        )
        threads.tell({ type: 'pod', pod: { uid, namespace, name, serviceAccount, identity, ips, netnsFd } })
        const certificate = certificates.certificate(uid)
        if (certificate) threads.tell({ type: 'certificate', podUid: uid, certificate })
        threads.listen(uid, sets)
      }
      this.#netnsFd = netnsFd
    } catch (err) {
      if (lingering !== undefined) this.#linger(lingering)
      else if (this.#netnsFd === undefined) closeSync(netnsFd)
      throw err
    }
    await applyRedirect(netnsFd, enrolment)
    this.#applied = enrolment
    guard.watch(uid, netnsFd, enrolment, this.pod)
    if (!certificates.certificate(uid))
      this.#be(this.#hasBeenIn ? 'drifted' : 'pending', 'captured; waiting for a certificate')
    this.#settled.resolve() // protected: nothing passes in the clear any more
    await this.#certified(signal)
    this.#be('enrolled', enrolment.problems.join('; '))
  }

  async #certified(signal: AbortSignal): Promise<void> {
    await this.#parts.certificates.ready(this.pod.uid, signal)
  }

  async #leave(): Promise<void> {
    // It goes on by itself from here: should it come in one day, its connections do not wait for its certificate.
    if (this.#beginning === 'new') this.#beginning = 'running'
    const netnsFd = this.#netnsFd
    this.#be('not-enrolled', '')
    if (netnsFd === undefined) {
      await this.#clearRemains()
      return
    }
    this.#parts.guard.unwatch(this.pod.uid)
    this.#applied = undefined
    await removeRedirect(netnsFd, { keepReturnPath: true })
    this.#netnsFd = undefined
    this.#linger(netnsFd)
  }

  #linger(netnsFd: number): void {
    const timer = setTimeout(() => void this.#letGo(netnsFd), STRAGGLERS_MS).unref()
    this.#lingering = { netnsFd, timer }
  }

  /** Gives the namespace's descriptor if the listeners were still served; it is the caller's then. */
  #endLingering(): number | undefined {
    const { netnsFd, timer } = this.#lingering ?? {}
    clearTimeout(timer)
    this.#lingering = undefined
    return netnsFd
  }

  /** A pod that is not enrolled, but was when an agent before this one ran here. */
  async #clearRemains(): Promise<void> {
    if (!this.#mayHaveRemains) return
    const { keeper } = this.#parts
    const netnsFd = openNetns(this.pod.netns)
    try {
      await removeRedirect(netnsFd, { keepReturnPath: false })
    } finally {
      closeSync(netnsFd)
    }
    keeper.release(this.pod.uid)
    this.#mayHaveRemains = false
  }

  /** No more stragglers: the listeners close, and when the last open connection has ended, all of it is given back. */
  async #letGo(netnsFd: number): Promise<void> {
    const { threads, keeper, certificates, router, log } = this.#parts
    const { uid } = this.pod
    this.#lingering = undefined
    try {
      keeper.release(uid)
      await threads.removePod(uid, AS_LONG_AS_THEY_LIVE_MS)
      // It may be on its way back in, or there already.
      if (this.#netnsFd === undefined && this.#wish.kind !== 'in') {
        await removeReturnPath(netnsFd)
        certificates.release(uid)
        router.removeLocalPod(uid)
      }
    } catch (err) {
      log.warn({ pod: this.#name, err: errorText(err) }, 'could not clear up after a pod that left the mesh')
    } finally {
      closeSync(netnsFd)
    }
  }

  async #vanish(): Promise<void> {
    const { guard, threads, keeper, certificates, router, reports } = this.#parts
    const { uid } = this.pod
    guard.unwatch(uid)
    const netnsFd = this.#netnsFd ?? this.#endLingering()
    this.#netnsFd = undefined
    keeper.release(uid)
    await threads.removePod(uid, 0)
    certificates.release(uid)
    router.removeLocalPod(uid)
    this.#status = { state: 'gone', detail: '', sinceMs: Date.now() }
    reports.remove(uid)
    if (netnsFd !== undefined) closeSync(netnsFd)
  }

  #be(state: LifeState, detail: string): void {
    if (this.#status.state === state && this.#status.detail === detail) return
    this.#status = { state, detail, sinceMs: Date.now() }
    if (state === 'enrolled') this.#hasBeenIn = true
    if (state === 'not-enrolled') this.#hasBeenIn = false
    const reported = REPORTED[state]
    if (reported !== undefined && !(this.#hasBeenIn && reported === PodState.PENDING)) {
      const { uid, namespace, name } = this.pod
      this.#parts.reports.set({ uid, namespace, name }, reported, detail)
    }
    this.#parts.log.info(
      { pod: this.#name, uid: this.pod.uid, state, ...(detail ? { detail } : {}) },
      'pod state',
    )
  }

  get #name(): string {
    return `${this.pod.namespace}/${this.pod.name}`
  }
}

/** Opens the pod's namespace and makes sure that it is the pod's: it must own the pod's addresses. Throws `NETNS`. */
function openVerified(pod: LocalPod): number {
  const fd = openNetns(pod.netns)
  try {
    const owned = new Set<string>()
    for (const addresses of Object.values(inNetns(fd, () => networkInterfaces())))
      for (const { address } of addresses ?? []) if (!address.includes('%')) owned.add(canonicalIp(address))
    const missing = pod.ips.filter(ip => !owned.has(ip))
    if (missing.length === 0) return fd
    throw new CulvertError(
      'NETNS',
      `${pod.netns} is not ${pod.namespace}/${pod.name}'s: it does not own ${missing.join(', ')}`,
    )
  } catch (err) {
    closeSync(fd)
    throw err
  }
}
