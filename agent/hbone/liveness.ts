/** PING both ways: measures, and notices a peer that is gone without a word. */
import { performance } from 'node:perf_hooks' // the global of this name is looked up anew each time
import { CODE, SessionError } from './protocol.ts'

const PAYLOAD = Buffer.from('culvert\0', 'latin1')

export interface LivenessOptions {
  /** Silence after which a PING is sent, ms. */
  readonly pingIntervalMs: number
  /** Silence after that PING which means that the peer is gone, ms. */
  readonly pingTimeoutMs: number
}

export class Liveness {
  readonly #options: LivenessOptions
  readonly #sendPing: (payload: Buffer) => void
  readonly #onSilent: (error: SessionError) => void
  readonly #timer: NodeJS.Timeout
  #lastReceived = performance.now()
  #sent: { at: number; done: ((rttMs: number) => void)[] } | undefined

  constructor(
    options: LivenessOptions,
    sendPing: (payload: Buffer) => void,
    onSilent: (error: SessionError) => void,
  ) {
    this.#options = options
    this.#sendPing = sendPing
    this.#onSilent = onSilent
    this.#timer = setInterval(() => this.#watch(), options.pingIntervalMs)
    this.#timer.unref()
  }

  /** Something came from the peer. */
  heard(): void {
    this.#lastReceived = performance.now()
  }

  /** Sends a PING, or joins the one that is under way; calls back with the round trip time. */
  ping(done: (rttMs: number) => void): void {
    if (this.#sent) {
      this.#sent.done.push(done)
      return
    }
    this.#sent = { at: performance.now(), done: [done] }
    this.#sendPing(PAYLOAD)
  }

  /** A PING was acknowledged. Acknowledgements of what was not sent are ignored. */
  acknowledged(payload: Buffer): void {
    const sent = this.#sent
    if (!sent || !payload.equals(PAYLOAD)) return
    this.#sent = undefined
    const rttMs = performance.now() - sent.at
    for (const done of sent.done) done(rttMs)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#sent = undefined
  }

  #watch(): void {
    const { pingIntervalMs, pingTimeoutMs } = this.#options
    const now = performance.now()
    const silentMs = now - this.#lastReceived
    if (this.#sent && now - this.#sent.at > pingTimeoutMs && silentMs > pingTimeoutMs)
      this.#onSilent(
        new SessionError(CODE.noError, `peer silent for ${Math.round(silentMs)} ms, PING unanswered`, {
          limit: 'pingTimeoutMs',
        }),
      )
    // A timer may come a little early.
    else if (silentMs >= pingIntervalMs * 0.9) this.ping(() => undefined)
  }
}
