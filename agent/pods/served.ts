/**
 * A pod on the data-plane threads: they are told of it once it is known who it is, with its listening sockets and its
 * certificate. Before that the sockets stand all the same: what the rules send there waits in the kernel, accepted by
 * nobody. When that has taken too long they are told of it without a name: what needs none is carried, as in any pod, and
 * what does is refused, with a line in the log, instead of waiting for ever.
 */
import { formatSpiffe } from '../../lib/spiffe.ts'
import type { CertificateManager } from '../identity/manager.ts'
import type { DataPlaneThreads } from '../worker/threads.ts'
import type { ListenerKeeper } from './listeners.ts'
import type { LocalPod } from './source.ts'

export interface ServedParts {
  readonly threads: DataPlaneThreads
  readonly keeper: ListenerKeeper
  readonly certificates: CertificateManager
  readonly trustDomain: string
}

export class ServedPod {
  readonly #uid: string
  readonly #parts: ServedParts
  /** Once known it stays: a pod's service account does not change. */
  #serviceAccount: string | undefined
  #isServed = false
  #isServedUnnamed = false

  constructor(uid: string, parts: ServedParts) {
    this.#uid = uid
    this.#parts = parts
  }

  /** It is not known before `identify` was told. */
  get serviceAccount(): string | undefined {
    return this.#serviceAccount
  }

  /** The threads know it. */
  get isServed(): boolean {
    return this.#isServed
  }

  /** Says who the pod is; its certificate is asked for at once. Throws `SPIFFE` when nobody can have that name. */
  identify({ namespace }: LocalPod, serviceAccount: string): void {
    this.#parts.certificates.hold({ uid: this.#uid, identity: this.#identity(namespace, serviceAccount) })
    this.#serviceAccount = serviceAccount
  }

  /** Makes the listening sockets, or takes those that an agent before this one made. Throws what the keeper throws. */
  async stand(netnsFd: number): Promise<void> {
    await this.#parts.keeper.stand(this.#uid, netnsFd)
  }

  /**
   * Tells the threads of it. Reports whether they know who it is: not before `identify`. `unnamed`: they are to serve it even
   * before that. Throws what the keeper throws.
   */
  async serve({ namespace, name, ips }: LocalPod, netnsFd: number, unnamed: boolean): Promise<boolean> {
    const { threads, keeper, certificates } = this.#parts
    const uid = this.#uid
    if (this.#isServed) return true
    if (this.#serviceAccount === undefined && (!unnamed || this.#isServedUnnamed)) return false
    // Threads that serve it without a name are told the name, and have its sockets.
    const sets = this.#isServedUnnamed
      ? undefined
      : await Promise.all(Array.from({ length: threads.count }, () => keeper.acquire(uid, netnsFd)))
    const serviceAccount = this.#serviceAccount
    const identity = serviceAccount === undefined ? '' : this.#identity(namespace, serviceAccount)
    const pod = { uid, namespace, name, serviceAccount: serviceAccount ?? '', identity, ips, netnsFd }
    threads.tell({ type: 'pod', pod })
    if (serviceAccount === undefined) {
      if (sets) threads.listen(uid, sets)
      this.#isServedUnnamed = true
      return false
    }
    this.#isServedUnnamed = false
    const certificate = certificates.certificate(uid)
    if (certificate) threads.tell({ type: 'certificate', podUid: uid, certificate })
    if (sets) threads.listen(uid, sets)
    this.#isServed = true
    return true
  }

  /** New connections of peers go elsewhere from here on; nothing is closed. */
  goaway(): void {
    if (this.#isServed) this.#parts.threads.tell({ type: 'goaway', podUid: this.#uid })
  }

  /** Nothing listens any more. Resolves when the last open connection has ended or was cut after so long, milliseconds. */
  async end(drainMs: number): Promise<void> {
    const { threads, keeper } = this.#parts
    this.#isServed = false
    this.#isServedUnnamed = false
    keeper.release(this.#uid)
    await threads.removePod(this.#uid, drainMs)
  }

  #identity(namespace: string, serviceAccount: string): string {
    return formatSpiffe(this.#parts.trustDomain, namespace, serviceAccount)
  }
}
