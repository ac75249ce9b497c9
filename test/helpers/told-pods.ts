/** Takes what a pod source tells, in words and in order, and answers as a test says. */
import { EventEmitter, once } from 'node:events'
import type { LocalPod, Patience, PodEvents, Safety } from '../../agent/pods/source.ts'

export class ToldPods implements PodEvents {
  /** `seen a`, `gone a`, `synced a b`. */
  readonly words: string[] = []
  /** What was last told of each pod. */
  readonly pods = new Map<string, LocalPod>()
  /** What was asked for, by the pod's uid. */
  readonly patience = new Map<string, Patience>()
  readonly drains = new Map<string, number>()
  seen: (pod: LocalPod) => Promise<void> = async () => undefined
  safe: (uid: string, patience: Patience) => Promise<Safety> = async () => 'safe'
  readonly #news = new EventEmitter().setMaxListeners(0)

  podSeen(pod: LocalPod): Promise<void> {
    this.pods.set(pod.uid, pod)
    this.#tell(`seen ${pod.uid}${pod.terminating ? ' terminating' : ''}`)
    return this.seen(pod)
  }

  podSafe(uid: string, patience: Patience): Promise<Safety> {
    this.patience.set(uid, patience)
    return this.safe(uid, patience)
  }

  async podGone(uid: string, drainMs = 0): Promise<void> {
    this.pods.delete(uid)
    this.drains.set(uid, drainMs)
    this.#tell(`gone ${uid}`)
  }

  async synced(uids: ReadonlySet<string>): Promise<void> {
    this.#tell(`synced ${[...uids].sort().join(' ')}`.trim())
  }

  /** The words so far, once they are this many; they are taken. */
  async after(count: number): Promise<string[]> {
    await this.until(() => this.words.length >= count)
    return this.words.splice(0)
  }

  /** Resolves when it is so after something was told. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await once(this.#news, 'told')
  }

  #tell(word: string): void {
    this.words.push(word)
    this.#news.emit('told')
  }
}
