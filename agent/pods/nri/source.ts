/**
 * Pods from the container runtime, by the Node Resource Interface. It tells of each pod when its network stands and before
 * its first container starts, and waits until the pod is captured: so nothing of a pod in the mesh is ever said in the
 * clear. Time is short, and the pods of a node wait for each other: what cannot be known or done within it is said of the
 * pod, which then starts all the same.
 *
 * The connection comes and goes with the runtime and is made again without end. Each time the runtime tells everything it
 * has, and what has changed meanwhile is made up for.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Backoff } from '../../../lib/backoff.ts'
import { errorText } from '../../../lib/errors.ts'
import type { Logger } from '../../../lib/log.ts'
import type { PodSandbox } from '../../../lib/proto/gen/nri/nri_pb.js'
import type { LocalPod, PodEvents, PodSource, Safety, SourceStatus } from '../source.ts'
import { Turns } from '../turns.ts'
import { NriPlugin } from './plugin.ts'
import { isThere, podOfSandbox } from './sandbox.ts'

export interface NriPodSourceOptions {
  readonly socket: string
  readonly log: Logger
  /** A pod was kept from starting for so long, milliseconds, and what it was then. */
  readonly onHeld?: (heldMs: number, safety: Safety) => void
  /** The runtime has told all that it has (true), or its connection has ended (false). */
  readonly onLink?: (isSynchronized: boolean) => void
  /** Most between two tries to connect, milliseconds. @default 1000 */
  readonly retryMs?: number
}

/** Of the time for one pod, what nobody knows yet may take this part. */
const UNKNOWN_PART = 0.5
/** When that was in vain once, discovery is away: the next pods wait only as long as a word that is on its way. */
const UNKNOWN_IN_VAIN_MS = 50
/** What is open when the containers have ended may come to its end for so long. */
const DRAIN_MS = 500

interface Told {
  /** Of the sandbox: a pod may be given another one. */
  readonly id: string
  readonly pod: LocalPod
}

export class NriPodSource implements PodSource {
  readonly #options: NriPodSourceOptions
  readonly #pods = new Map<string, Told>()
  readonly #turns: Turns
  #plugin: NriPlugin | undefined
  #lastEnd = ''
  #connections = 0
  #isUnknownInVain = false
  #held = { pods: 0, lastMs: 0, longestMs: 0, late: 0, unknown: 0 }

  constructor(options: NriPodSourceOptions) {
    this.#options = options
    this.#turns = new Turns((podUid, err) =>
      options.log.error({ podUid, err: errorText(err) }, 'pod event failed'),
    )
  }

  status(): SourceStatus {
    const { socket } = this.#options
    const isSynchronized = this.#plugin?.isSynchronized ?? false
    const waitsFor = this.#plugin?.runtime
      ? 'the container runtime, to tell which pods it has'
      : `the container runtime's NRI socket ${socket}${this.#lastEnd && `: ${this.#lastEnd}`}`
    return {
      kind: 'nri',
      waitsFor: isSynchronized ? undefined : waitsFor,
      socket,
      runtime: this.#plugin?.runtime,
      connections: this.#connections,
      lastEnd: this.#lastEnd,
      pods: this.#pods.size,
      held: { ...this.#held },
    }
  }

  async run(events: PodEvents, signal: AbortSignal): Promise<void> {
    const { socket, log, onLink, retryMs = 1000 } = this.#options
    const backoff = new Backoff({ firstMs: Math.min(50, retryMs), maxMs: retryMs })
    let isSynchronized = false
    while (!signal.aborted) {
      isSynchronized = false
      const plugin = new NriPlugin({
        socket,
        log,
        events: {
          synchronized: sandboxes => {
            isSynchronized = true
            backoff.reset()
            this.#synchronized(sandboxes, events)
            onLink?.(true)
          },
          run: (sandbox, withinMs) => this.#run(sandbox, withinMs, events),
          stop: sandbox => this.#gone(sandbox, DRAIN_MS, events),
          remove: sandbox => this.#gone(sandbox, 0, events),
        },
      })
      this.#plugin = plugin
      this.#connections++
      const end = errorText(await plugin.serve(signal))
      if (signal.aborted) break
      if (isSynchronized) onLink?.(false)
      // A socket that is not there yet is waited for, and says the same each time.
      if (isSynchronized || end !== this.#lastEnd)
        log.warn({ socket, reason: end }, 'no connection to the container runtime')
      this.#lastEnd = end
      await backoff.wait(signal)
    }
  }

  /** Tells what is there, and of what has gone that it has. */
  #synchronized(sandboxes: readonly PodSandbox[], events: PodEvents): void {
    const now = new Map<string, Told>()
    for (const sandbox of sandboxes) {
      const pod = podOfSandbox(sandbox)
      // Of two sandboxes of one pod, one has stopped; it may not have been cleared away.
      if (!pod || !isThere(pod) || (now.has(pod.uid) && pod.pid === undefined)) continue
      now.set(pod.uid, { id: sandbox.id, pod: withCaveat(pod, this.#pods.get(pod.uid), sandbox) })
    }
    this.#options.log.info({ sandboxes: sandboxes.length, pods: now.size }, 'pods of the container runtime')
    for (const uid of this.#pods.keys())
      if (!now.has(uid)) void this.#turns.inTurn(uid, () => events.podGone(uid))
    this.#pods.clear()
    for (const [uid, told] of now) {
      this.#pods.set(uid, told)
      void this.#turns.inTurn(uid, () => events.podSeen(told.pod))
    }
    void this.#turns.inTurn('', () => events.synced(new Set(now.keys())))
  }

  async #run(sandbox: PodSandbox, withinMs: number, events: PodEvents): Promise<void> {
    const startMs = performance.now()
    const pod = podOfSandbox(sandbox)
    if (!pod) return
    const { uid } = pod
    this.#pods.set(uid, { id: sandbox.id, pod })
    const over = new AbortController()
    const safety = await Promise.race([
      this.#safety(pod, withinMs, events),
      sleep(withinMs, 'late' as const, { signal: over.signal }).catch(() => 'late' as const),
    ])
    over.abort()
    const heldMs = Math.round(performance.now() - startMs)
    this.#isUnknownInVain = safety === 'unknown'
    this.#held = {
      pods: this.#held.pods + 1,
      lastMs: heldMs,
      longestMs: Math.max(this.#held.longestMs, heldMs),
      late: this.#held.late + Number(safety === 'late'),
      unknown: this.#held.unknown + Number(safety === 'unknown'),
    }
    this.#options.onHeld?.(heldMs, safety)
    this.#options.log.debug({ podUid: uid, heldMs, safety }, 'pod may start')
    if (safety !== 'safe') this.#startsAllTheSame(sandbox.id, pod, safety, events)
  }

  async #safety(pod: LocalPod, withinMs: number, events: PodEvents): Promise<Safety> {
    await this.#turns.inTurn(pod.uid, () => events.podSeen(pod))
    const unknownMs = this.#isUnknownInVain ? UNKNOWN_IN_VAIN_MS : withinMs * UNKNOWN_PART
    return events.podSafe(pod.uid, { withinMs, unknownMs })
  }

  /** What that means is said of it from now on. */
  #startsAllTheSame(id: string, pod: LocalPod, safety: Safety, events: PodEvents): void {
    if (this.#pods.get(pod.uid)?.id !== id) return
    const caveat =
      safety === 'unknown'
        ? 'its containers were started before it was known whether it is in the mesh'
        : 'its containers were started before it was captured: that took too long'
    this.#options.log.warn({ pod: `${pod.namespace}/${pod.name}`, podUid: pod.uid }, caveat)
    const told = { ...pod, caveat }
    this.#pods.set(pod.uid, { id, pod: told })
    void this.#turns.inTurn(pod.uid, () => events.podSeen(told))
  }

  async #gone({ id, uid }: PodSandbox, drainMs: number, events: PodEvents): Promise<void> {
    // The pod may have another sandbox by now.
    if (this.#pods.get(uid)?.id !== id) return
    this.#pods.delete(uid)
    await this.#turns.inTurn(uid, () => events.podGone(uid, drainMs))
  }
}

/** What was said of a sandbox stays true of it. */
function withCaveat(pod: LocalPod, before: Told | undefined, { id }: PodSandbox): LocalPod {
  return before?.id === id && before.pod.caveat !== undefined ? { ...pod, caveat: before.pod.caveat } : pod
}
