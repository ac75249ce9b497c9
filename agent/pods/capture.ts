/** The redirection in one network namespace of a pod: put there, changed, guarded, taken away. */
import type { Enrolment } from '../../lib/enrolment.ts'
import type { Logger } from '../../lib/log.ts'
import { applyRedirect, removeRedirect } from '../redirect/apply.ts'
import type { DataPlaneThreads } from '../worker/threads.ts'
import type { RedirectGuard } from './guard.ts'
import { endOrTell, type StrictPod } from './open-plaintext.ts'
import type { LocalPod } from './source.ts'

export interface CaptureParts {
  readonly guard: RedirectGuard
  readonly threads: DataPlaneThreads
  readonly log: Logger
}

export class Capture {
  readonly #uid: string
  readonly #parts: CaptureParts
  /** Open while the pod is in the mesh. */
  #netnsFd: number | undefined
  #applied: Enrolment | undefined

  constructor(uid: string, parts: CaptureParts) {
    this.#uid = uid
    this.#parts = parts
  }

  get netnsFd(): number | undefined {
    return this.#netnsFd
  }

  /** What the rules are made for; undefined where there are none. */
  get enrolment(): Enrolment | undefined {
    return this.#applied
  }

  /** Undefined where it is not strict. */
  strictPod({ namespace, name, ips }: LocalPod): StrictPod | undefined {
    const [netnsFd, applied] = [this.#netnsFd, this.#applied]
    if (netnsFd === undefined || !applied?.strictInbound) return undefined
    return { uid: this.#uid, namespace, name, ips, netnsFd, excludeInboundPorts: applied.excludeInboundPorts }
  }

  /** The descriptor of the namespace is its own from here on. */
  take(netnsFd: number): void {
    this.#netnsFd = netnsFd
  }

  /** The rules stand when it resolves. Reports whether any were to be changed. Throws what the redirection throws. */
  async apply(netnsFd: number, enrolment: Enrolment, pod: LocalPod): Promise<boolean> {
    const { guard, threads, log } = this.#parts
    const before = this.#applied
    if (before === enrolment) return false
    await applyRedirect(netnsFd, enrolment)
    if (before) guard.update(this.#uid, enrolment, pod)
    else guard.watch(this.#uid, netnsFd, enrolment, pod)
    this.#applied = enrolment
    // Strict has begun: what came in plaintext before is listed, or cut. It never throws.
    const strict = before?.strictInbound === true ? undefined : this.strictPod(pod)
    if (strict) void endOrTell(strict, enrolment.cutOpen, threads, log)
    return true
  }

  /** The source tells of the pod anew: the guard looks for this one's addresses and namespace. */
  told(pod: LocalPod): void {
    if (this.#applied) this.#parts.guard.update(this.#uid, this.#applied, pod)
  }

  /** No new connection comes to the agent; the return path of open ones stays. Gives the descriptor back; undefined without one. */
  async remove(): Promise<number | undefined> {
    const netnsFd = this.#netnsFd
    if (netnsFd === undefined) return undefined
    this.#parts.guard.unwatch(this.#uid)
    this.#applied = undefined
    await removeRedirect(netnsFd, { keepReturnPath: true })
    this.#netnsFd = undefined
    return netnsFd
  }

  /** The namespace is over, and its rules with it. Gives the descriptor back. */
  abandon(): number | undefined {
    this.#parts.guard.unwatch(this.#uid)
    const netnsFd = this.#netnsFd
    this.#netnsFd = undefined
    return netnsFd
  }
}
