/** The redirection in one network namespace of a pod: put there, changed, guarded, taken away. */
import type { Enrolment } from '../../lib/enrolment.ts'
import { applyRedirect, removeRedirect } from '../redirect/apply.ts'
import type { LifeParts } from './life-parts.ts'
import { endOrTell, type StrictPod } from './open-plaintext.ts'
import type { LocalPod } from './source.ts'

export class Capture {
  readonly #parts: Pick<LifeParts, 'guard' | 'threads' | 'log'>
  /** Open while the pod is in the mesh. */
  #netnsFd: number | undefined
  #applied: Enrolment | undefined

  constructor(parts: Pick<LifeParts, 'guard' | 'threads' | 'log'>) {
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
  strictPod({ uid, namespace, name, ips }: LocalPod): StrictPod | undefined {
    const [netnsFd, applied] = [this.#netnsFd, this.#applied]
    if (netnsFd === undefined || !applied?.strictInbound) return undefined
    return { uid, namespace, name, ips, netnsFd, excludeInboundPorts: applied.excludeInboundPorts }
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
    if (before) guard.update(pod.uid, enrolment, pod)
    else guard.watch(pod.uid, netnsFd, enrolment, pod)
    this.#applied = enrolment
    // Strict has begun: what came in plaintext before is listed, or cut. It never throws.
    const strict = before?.strictInbound === true ? undefined : this.strictPod(pod)
    if (strict) void endOrTell(strict, enrolment.cutOpen, threads, log)
    return true
  }

  /** The source tells of the pod anew: the guard looks for this one's addresses and namespace. */
  told(pod: LocalPod): void {
    if (this.#applied) this.#parts.guard.update(pod.uid, this.#applied, pod)
  }

  /** No new connection comes to the agent; the return path of open ones stays. Gives the descriptor back; undefined without one. */
  async remove(uid: string): Promise<number | undefined> {
    const netnsFd = this.#netnsFd
    if (netnsFd === undefined) return undefined
    this.#parts.guard.unwatch(uid)
    this.#applied = undefined
    await removeRedirect(netnsFd, { keepReturnPath: true })
    this.#netnsFd = undefined
    return netnsFd
  }

  /** The namespace is over, and its rules with it. Gives the descriptor back. */
  abandon(uid: string): number | undefined {
    this.#parts.guard.unwatch(uid)
    const netnsFd = this.#netnsFd
    this.#netnsFd = undefined
    return netnsFd
  }
}
