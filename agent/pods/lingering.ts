/**
 * A pod that has left the mesh, as long as something of it is kept: its listeners, for what the rules sent to them and for
 * peers that have not heard, then what is open through them and the return path that this needs, then nothing.
 */
import { closeSync } from 'node:fs'
import type { Logger } from '../../lib/log.ts'
import { errorText } from '../../lib/errors.ts'
import { removeReturnPath } from '../redirect/apply.ts'
import type { ServedPod } from './served.ts'

/** Peers that have not heard of an un-enrolment yet still come to 15008 for this long. All listeners stand till then. */
const STRAGGLERS_MS = 30_000
/** Connections of a pod that left the mesh may stay open: as long as a timer can say. */
const AS_LONG_AS_THEY_LIVE_MS = 0x7fff_ffff

export interface LingeringParts {
  readonly served: Pick<ServedPod, 'end'>
  /** `namespace/name`, for the log. */
  readonly name: string
  readonly log: Logger
  /** It is on its way back in, or there already. */
  readonly isBack: () => boolean
  /** Nothing of it is open any more, and it is not back: what the rest of the agent keeps for it. */
  readonly release: () => void
}

export class Lingering {
  readonly #parts: LingeringParts
  /** While its listeners are still served. */
  #listening: { readonly netnsFd: number; readonly timer: NodeJS.Timeout } | undefined
  #lettingGo: Promise<void> = Promise.resolve()

  constructor(parts: LingeringParts) {
    this.#parts = parts
  }

  /** Undefined when no listeners are served any more. */
  get netnsFd(): number | undefined {
    return this.#listening?.netnsFd
  }

  /** Takes the descriptor of the pod's namespace. */
  begin(netnsFd: number): void {
    const timer = setTimeout(() => void this.over(), STRAGGLERS_MS).unref()
    this.#listening = { netnsFd, timer }
  }

  /** Gives the namespace's descriptor back if the listeners were still served; it is the caller's then, and they stay. */
  end(): number | undefined {
    const { netnsFd, timer } = this.#listening ?? {}
    clearTimeout(timer)
    this.#listening = undefined
    return netnsFd
  }

  /** At once, without waiting for stragglers. Resolves when the last open connection has ended. Never rejects. */
  async over(): Promise<void> {
    const netnsFd = this.end()
    if (netnsFd !== undefined) this.#lettingGo = this.#letGo(netnsFd)
    await this.#lettingGo
  }

  /** The listeners close, and when the last open connection has ended, all of it is given back. */
  async #letGo(netnsFd: number): Promise<void> {
    const { served, name, log, isBack, release } = this.#parts
    try {
      await served.end(AS_LONG_AS_THEY_LIVE_MS)
      if (isBack()) return
      await removeReturnPath(netnsFd)
      release()
    } catch (err) {
      log.warn({ pod: name, err: errorText(err) }, 'could not clear up after a pod that left the mesh')
    } finally {
      closeSync(netnsFd)
    }
  }
}
