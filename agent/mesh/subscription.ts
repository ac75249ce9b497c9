/**
 * One type of resource on the discovery stream, over all streams: which names are held in which version, how a
 * response is applied, and what is answered.
 *
 * After a reconnect the server is told what is held, and answers with the difference. When that would be too
 * much for one request, nothing is told; the server then sends everything, perhaps in many responses, and what it
 * has not named when it falls quiet is gone. Waiting for the quiet is on purpose: something kept a little too long
 * is tried and fails, something forgotten too early is taken for a stranger.
 *
 * A type whose resources are asked for by name is the same but for that names go with the first request and with
 * later ones, and that an answer to each of them says more surely than quiet that all has been told.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponse,
  Resource,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import type { ResourceKind } from './resource-kind.ts'

export type DeltaRequest = Exclude<
  MessageInitShape<typeof DeltaDiscoveryRequestSchema>,
  { $typeName: string }
>

/** Resources applied before other work of the event loop gets its turn. */
const SLICE = 128
/** A response smaller than this had room for more: the server has said all it had to say. */
const SMALL_BYTES = 64 * 1024
const MAX_ERROR_TEXT = 2000
/** google.rpc.Code.INVALID_ARGUMENT */
const INVALID_ARGUMENT = 3

export interface SubscriptionOptions {
  readonly kind: ResourceKind
  /** Most bytes of a first request's names and versions together. */
  readonly maxRequestBytes: number
  /** How long without a response of the type means that the first full picture is complete. */
  readonly settleMs: number
  /** How long without one means that what a full answer has not named is gone. */
  readonly quietMs: number
  readonly log: Logger
}

export interface SubscriptionCounters {
  responses: number
  /** Of the resources as encoded; framing is not counted. */
  bytes: number
  resources: number
  removed: number
  rejected: number
}

export class Subscription {
  readonly counters: SubscriptionCounters = { responses: 0, bytes: 0, resources: 0, removed: 0, rejected: 0 }
  readonly #options: SubscriptionOptions
  readonly #versions = new Map<string, string>()
  // Names held from before that a full answer has not confirmed yet; undefined when the server knows what we hold.
  #unconfirmed: Set<string> | undefined
  // Names asked for with the first request of the stream, and not answered on it yet.
  readonly #unanswered = new Set<string>()
  #ask: () => void = () => undefined
  #settleTimer: NodeJS.Timeout | undefined
  #quietTimer: NodeJS.Timeout | undefined
  #isSettled = false

  constructor(options: SubscriptionOptions) {
    this.#options = options
    options.kind.wants?.attach({ ask: () => this.#ask(), forget: name => this.#versions.delete(name) })
  }

  get typeUrl(): string {
    return this.#options.kind.typeUrl
  }

  /** Number of resources held. */
  get size(): number {
    return this.#versions.size
  }

  /** The first full picture of the type has been applied, on this stream or an earlier one. */
  get isSettled(): boolean {
    return this.#isSettled
  }

  /** A new stream: the first request of this type on it. `ask` is called when `update` has another one. */
  begin(ask: () => void = () => undefined): DeltaRequest {
    const { wants } = this.#options.kind
    const names = wants?.begin()
    this.#ask = ask
    let bytes = 0
    // A map entry costs two tags and two lengths; the lengths here are at most two bytes each.
    for (const [name, version] of this.#versions) bytes += Buffer.byteLength(name) + version.length + 10
    const fits = bytes <= this.#options.maxRequestBytes
    this.#unconfirmed = fits ? undefined : new Set(this.#versions.keys())
    if (!fits && wants?.isAnsweredByName) for (const name of names ?? []) this.#unanswered.add(name)
    return {
      typeUrl: this.typeUrl,
      ...(fits && { initialResourceVersions: Object.fromEntries(this.#versions) }),
      // To ask for nothing is to ask for everything and to give that up.
      ...(names && { resourceNamesSubscribe: ['*', ...names], resourceNamesUnsubscribe: ['*'] }),
    }
  }

  /** The stream stands: the server answers. */
  opened(): void {
    this.#options.kind.wants?.opened()
  }

  /** Another request, when there are names to ask for or to give up. */
  update(): DeltaRequest | undefined {
    const names = this.#options.kind.wants?.take()
    if (!names) return undefined
    for (const name of names.unsubscribe) this.#unanswered.delete(name)
    return {
      typeUrl: this.typeUrl,
      resourceNamesSubscribe: names.subscribe,
      resourceNamesUnsubscribe: names.unsubscribe,
    }
  }

  /** The stream has ended. */
  end(): void {
    clearTimeout(this.#settleTimer)
    clearTimeout(this.#quietTimer)
    this.#unconfirmed = undefined
    this.#unanswered.clear()
    this.#ask = () => undefined
    this.#options.kind.wants?.closed()
  }

  /**
   * Applies a response, in slices so that a big one does not stop everything else, and gives the answer to it:
   * an ACK, or a NACK that names the resources that were malformed. Those keep what they last said; the others
   * of the response hold. Rejects when the signal aborts.
   */
  async take(response: DeltaDiscoveryResponse, signal: AbortSignal): Promise<DeltaRequest> {
    clearTimeout(this.#settleTimer)
    clearTimeout(this.#quietTimer)
    this.counters.responses++
    const problems: string[] = []
    let rejected = 0
    let bytes = 0
    for (const [at, resource] of response.resources.entries()) {
      bytes += resource.resource?.value.length ?? 0
      const problem = this.#apply(resource)
      if (problem !== undefined) {
        rejected++
        if (problems.length < 10) problems.push(`'${resource.name}': ${problem}`)
      }
      if (at % SLICE === SLICE - 1) await pause(signal)
    }
    for (const [at, name] of response.removedResources.entries()) {
      this.#remove(name)
      if (at % SLICE === SLICE - 1) await pause(signal)
    }
    this.counters.bytes += bytes
    this.#options.kind.wants?.applied()
    this.#waitForQuiet(bytes)

    const request: DeltaRequest = { typeUrl: this.typeUrl, responseNonce: response.nonce }
    if (rejected === 0) return request
    const message = `${rejected} of ${response.resources.length} rejected: ${problems.join('; ')}`.slice(
      0,
      MAX_ERROR_TEXT,
    )
    this.#options.log.error(
      { type: this.typeUrl, nonce: response.nonce, rejected, problems },
      'malformed resources rejected',
    )
    return { ...request, errorDetail: { code: INVALID_ARGUMENT, message } }
  }

  /** Gives what is wrong with the resource, or undefined. */
  #apply({ name, version, resource }: Resource): string | undefined {
    // Named is named, malformed or not: it still exists.
    this.#unconfirmed?.delete(name)
    try {
      if (name === '') throw new Error('a resource without a name')
      if (resource?.typeUrl !== this.typeUrl) throw new Error(`its type is '${resource?.typeUrl ?? ''}'`)
      if (!this.#answer(name, true) && this.#options.kind.put(name, resource.value) === 'unwanted')
        return undefined
    } catch (err) {
      this.counters.rejected++
      return errorText(err)
    }
    this.counters.resources++
    this.#versions.set(name, version)
    return undefined
  }

  #remove(name: string): void {
    this.#unconfirmed?.delete(name)
    this.#versions.delete(name)
    this.counters.removed++
    if (!this.#answer(name, false)) this.#options.kind.remove(name)
  }

  /** Reports whether it is the answer to a name that was asked for, and no resource of its own. */
  #answer(name: string, isFound: boolean): boolean {
    this.#unanswered.delete(name)
    return this.#options.kind.wants?.answer(name, isFound) ?? false
  }

  #waitForQuiet(bytes: number): void {
    const { settleMs, quietMs } = this.#options
    if (!this.#isSettled && bytes < SMALL_BYTES) this.#settle()
    if (!this.#isSettled) this.#settleTimer = setTimeout(() => this.#settle(), settleMs)
    if (this.#unanswered.size > 0) return
    if (this.#unconfirmed) this.#quietTimer = setTimeout(() => this.#forgetUnconfirmed(), quietMs)
  }

  #settle(): void {
    if (this.#isSettled) return
    this.#isSettled = true
    this.#options.kind.settled()
  }

  #forgetUnconfirmed(): void {
    const gone = this.#unconfirmed
    this.#unconfirmed = undefined
    if (!gone || gone.size === 0) return
    this.#options.log.info({ type: this.typeUrl, count: gone.size }, 'forgot what the server no longer names')
    for (const name of gone) this.#remove(name)
  }
}

async function pause(signal: AbortSignal): Promise<void> {
  await nextTurn()
  signal.throwIfAborted()
}
