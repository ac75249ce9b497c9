/**
 * One client's delta discovery stream: requests go in, responses are taken out, nothing is done ahead. Of each
 * type only a few responses may be unacknowledged at a time; what changes meanwhile is folded into the next one.
 */
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../lib/proto/gen/envoy/discovery_pb.js'
import type { Logger } from '../../lib/log.ts'
import type { ResourceSet } from './resource-set.ts'
import { Subscription } from './subscription.ts'
import { encodeResponse } from './wire.ts'

export interface DeltaStreamOptions {
  /** The types served, in the order in which their news go out. */
  readonly sets: readonly ResourceSet[]
  readonly log: Logger
  /** What a client that asks by name is given unasked: see `SubscriptionOptions`. */
  readonly always?: readonly string[]
  /** Content of one response, before its last resource. @default 512 KiB */
  readonly maxBytes?: number
  /** Told of each response and each refusal by the client, for metrics. */
  readonly observe?: {
    sent(typeUrl: string, resources: number, removed: number): void
    refused(typeUrl: string): void
  }
}

/** Well below what clients accept by default (4 MiB), and encoded in some milliseconds. */
const MAX_RESPONSE_BYTES = 512 * 1024
const MAX_UNACKNOWLEDGED = 4
const MAX_UNKNOWN_TYPES = 16

interface TypeState {
  readonly subscription: Subscription
  readonly unacknowledged: Set<string>
}

export class DeltaStream {
  readonly #options: DeltaStreamOptions
  readonly #types = new Map<string, TypeState>()
  readonly #unknown = new Set<string>()
  #nonces = 0
  #hasExpired = false
  #node = ''
  #wake: (() => void) | undefined

  constructor(options: DeltaStreamOptions) {
    this.#options = options
  }

  /** Takes a request in. Throws `INPUT` when it asks for more than is given to one client. */
  receive(request: DeltaDiscoveryRequest): void {
    if (request.node && this.#node === '') {
      this.#node = request.node.id.slice(0, 256)
      this.#options.log.info({ client: this.#node }, 'discovery client named itself')
    }
    const set = this.#options.sets.find(set => set.typeUrl === request.typeUrl)
    if (!set) {
      this.#ignore(request.typeUrl)
      return
    }
    const state = this.#types.get(set.typeUrl)
    if (state) this.#update(state, request)
    else this.#subscribe(set, request)
    this.wake()
  }

  /** The next response, for binary formats (see wire.ts), or undefined when there is nothing to say now. */
  take(): DeltaDiscoveryResponse | undefined {
    for (const { typeUrl } of this.#options.sets) {
      const state = this.#types.get(typeUrl)
      if (!state || state.unacknowledged.size >= MAX_UNACKNOWLEDGED) continue
      const portion = state.subscription.take()
      if (!portion) continue
      const nonce = `${++this.#nonces}`
      state.unacknowledged.add(nonce)
      this.#options.observe?.sent(typeUrl, portion.resources.length, portion.removed.length)
      const { revision } = state.subscription
      return encodeResponse({ typeUrl, nonce, revision, ...portion })
    }
    return undefined
  }

  /** Reports whether the client lags so far behind that it has to start over. */
  get hasExpired(): boolean {
    return this.#hasExpired
  }

  /** Ends when there may be something to take. One may wait at a time. */
  waitForNews(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }

  /** Says that there may be something to take. */
  wake(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  close(): void {
    for (const { subscription } of this.#types.values()) subscription.close()
    this.wake()
  }

  #subscribe(set: ResourceSet, request: DeltaDiscoveryRequest): void {
    const expired = (): void => {
      this.#hasExpired = true
      this.wake()
    }
    const { always = [], maxBytes = MAX_RESPONSE_BYTES } = this.#options
    const subscription = new Subscription(set, request, { maxBytes, always, expired })
    this.#types.set(set.typeUrl, { subscription, unacknowledged: new Set() })
    this.#options.log.debug(
      {
        type: set.typeUrl,
        wildcard: subscription.isWildcard,
        known: Object.keys(request.initialResourceVersions).length,
      },
      'discovery type subscribed',
    )
  }

  #update(state: TypeState, request: DeltaDiscoveryRequest): void {
    const nonce = request.responseNonce
    state.unacknowledged.delete(nonce)
    if (request.errorDetail) {
      this.#options.observe?.refused(request.typeUrl)
      const { code, message } = request.errorDetail
      this.#options.log.warn(
        { type: request.typeUrl, nonce, code, err: message.slice(0, 1000), client: this.#node },
        'discovery client refused a response',
      )
    } else if (nonce !== '')
      this.#options.log.trace({ type: request.typeUrl, nonce }, 'response acknowledged')
    state.subscription.update(request)
  }

  #ignore(typeUrl: string): void {
    if (this.#unknown.has(typeUrl) || this.#unknown.size >= MAX_UNKNOWN_TYPES) return
    this.#unknown.add(typeUrl)
    this.#options.log.warn({ type: typeUrl.slice(0, 256), client: this.#node }, 'discovery type not served')
  }
}
