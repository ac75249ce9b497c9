/**
 * The container runtime's word where it gives it, and `/proc` where it does not: until the runtime's NRI socket is there,
 * and again when it has been away for long. Whoever takes over tells everything once, so that nothing is lost between them.
 */
import type { Logger } from '../../lib/log.ts'
import { NriPodSource, type NriPodSourceOptions } from './nri/source.ts'
import { ProcPodSource, type ProcPodSourceOptions } from './proc/source.ts'
import type { PodEvents, PodSource, SourceStatus } from './source.ts'

export interface AutoPodSourceOptions {
  readonly nri: Omit<NriPodSourceOptions, 'onLink'>
  readonly proc: ProcPodSourceOptions
  readonly log: Logger
  /** How long the runtime may take at the start, milliseconds. @default 2000 */
  readonly firstMs?: number
  /** How long it may be away: it cannot start a pod meanwhile, milliseconds. @default 10000 */
  readonly awayMs?: number
}

export class AutoPodSource implements PodSource {
  readonly #options: Required<AutoPodSourceOptions>
  readonly #nri: NriPodSource
  readonly #proc: ProcPodSource
  #begin = (): void => undefined
  #timer: NodeJS.Timeout | undefined
  /** Ends the search through `/proc` while there is one. */
  #search: AbortController | undefined
  #searching: Promise<void> = Promise.resolve()

  constructor(options: AutoPodSourceOptions) {
    this.#options = { firstMs: 2000, awayMs: 10_000, ...options }
    this.#proc = new ProcPodSource(options.proc)
    this.#nri = new NriPodSource({ ...options.nri, onLink: isLinked => this.#linked(isLinked) })
  }

  status(): SourceStatus {
    const nri = this.#nri.status()
    const proc = this.#search ? this.#proc.status() : undefined
    // One of them is enough.
    const waitsFor =
      nri.waitsFor === undefined || (proc !== undefined && proc.waitsFor === undefined)
        ? undefined
        : [nri.waitsFor, ...(proc ? [`or ${proc.waitsFor}`] : [])].join(', ')
    return { ...(proc ?? nri), waitsFor, nri, ...(proc && { proc }) }
  }

  async run(events: PodEvents, signal: AbortSignal): Promise<void> {
    this.#begin = () => this.#beginSearch(events)
    this.#timer = setTimeout(this.#begin, this.#options.firstMs)
    await this.#nri.run(events, signal)
    clearTimeout(this.#timer)
    this.#search?.abort()
    await this.#searching
  }

  #linked(isLinked: boolean): void {
    const { log, awayMs } = this.#options
    clearTimeout(this.#timer)
    if (!isLinked) {
      this.#timer = setTimeout(this.#begin, awayMs)
      return
    }
    if (!this.#search) return
    log.info('the container runtime tells of pods: no more search through /proc')
    this.#search.abort()
    this.#search = undefined
  }

  #beginSearch(events: PodEvents): void {
    const search = new AbortController()
    this.#options.log.warn(
      { nri: this.#nri.status().waitsFor },
      'the container runtime does not tell of pods: they are looked for in /proc',
    )
    this.#search = search
    const before = this.#searching
    this.#searching = before.then(() => this.#proc.run(events, search.signal))
  }
}
