/**
 * What a pod's life has come to: for the log, for the ca-server, for whoever asks or waits. Peers tunnel to a pod that was
 * once said to be enrolled: nothing that is said of it from then on makes them stop, short of its leaving the mesh.
 */
import type { Logger } from '../../lib/log.ts'
import { PodState, type ReportClient } from '../identity/report-client.ts'
import type { LocalPod } from './source.ts'

export type LifeState = 'unknown' | 'pending' | 'enrolled' | 'drifted' | 'not-enrolled' | 'gone'

export interface LifeStatus {
  readonly state: LifeState
  readonly detail: string
  readonly sinceMs: number
}

export interface LifeStateParts {
  readonly reports: Pick<ReportClient, 'set' | 'remove'>
  readonly log: Logger
}

const REPORTED: Record<LifeState, PodState | undefined> = {
  unknown: PodState.PENDING,
  pending: PodState.PENDING,
  enrolled: PodState.ENROLLED,
  drifted: PodState.DRIFTED,
  'not-enrolled': PodState.NOT_ENROLLED,
  gone: undefined,
}

export class PodLifeState {
  readonly #pod: Pick<LocalPod, 'uid' | 'namespace' | 'name'>
  readonly #parts: LifeStateParts
  #status: LifeStatus = { state: 'unknown', detail: 'heard of', sinceMs: Date.now() }
  #hasBeenIn: boolean
  #news = Promise.withResolvers<void>()

  /** @param hasBeenIn an agent before this one has said that it is enrolled */
  constructor({ uid, namespace, name }: LocalPod, parts: LifeStateParts, hasBeenIn: boolean) {
    this.#pod = { uid, namespace, name }
    this.#parts = parts
    this.#hasBeenIn = hasBeenIn
  }

  get now(): LifeStatus {
    return this.#status
  }

  /** `namespace/name` */
  get name(): string {
    return `${this.#pod.namespace}/${this.#pod.name}`
  }

  /** Saying the same again does nothing. */
  be(state: LifeState, detail: string): void {
    if (this.#status.state === state && this.#status.detail === detail) return
    this.#status = { state, detail, sinceMs: Date.now() }
    if (state === 'enrolled') this.#hasBeenIn = true
    if (state === 'not-enrolled') this.#hasBeenIn = false
    const reported = REPORTED[state]
    if (reported === undefined) this.#parts.reports.remove(this.#pod.uid)
    else if (!(this.#hasBeenIn && reported === PodState.PENDING))
      this.#parts.reports.set(this.#pod, reported, detail)
    if (state !== 'gone')
      this.#parts.log.info(
        { pod: this.name, uid: this.#pod.uid, state, ...(detail ? { detail } : {}) },
        'pod state',
      )
    this.tell()
  }

  /** Something is not as it should be, yet. */
  lack(detail: string): void {
    this.be(this.#hasBeenIn ? 'drifted' : 'pending', detail)
  }

  /** Whoever waits for a change looks again. */
  tell(): void {
    this.#news.resolve()
    this.#news = Promise.withResolvers()
  }

  /** Resolves at the next change, or after the time in milliseconds. */
  async changed(timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    await Promise.race([this.#news.promise, promise])
    clearTimeout(timer)
  }
}
