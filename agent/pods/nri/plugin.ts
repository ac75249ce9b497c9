/**
 * One registration with the container runtime: `culvert` among its plugins, asked about the beginning and the end of pod
 * sandboxes and nothing else. The runtime does one thing at a time while it waits for an answer of ours, for all pods of
 * the node; an answer that is an error would keep a pod from starting, one that comes too late costs us the connection.
 * So each is given in time, whatever has happened.
 */
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { CulvertError, errorText } from '../../../lib/errors.ts'
import type { Logger } from '../../../lib/log.ts'
import { printable } from '../../../lib/printable.ts'
import {
  ConfigureRequestSchema,
  ConfigureResponseSchema,
  Event,
  RegisterPluginRequestSchema,
  StateChangeEventSchema,
  SynchronizeRequestSchema,
  SynchronizeResponseSchema,
  type PodSandbox,
  type StateChangeEvent,
} from '../../../lib/proto/gen/nri/nri_pb.js'
import { NriLink } from './link.ts'

/** Who hears of the sandboxes. */
export interface SandboxEvents {
  /** Everything that the runtime has now; what it told before and does not name is gone. */
  synchronized(sandboxes: readonly PodSandbox[]): void
  /** Its network stands and no container of it has started: none does before this ends, or so many milliseconds are over. */
  run(sandbox: PodSandbox, withinMs: number): Promise<void>
  /** Its containers have ended, its network stands until this ends, or so many milliseconds are over. */
  stop(sandbox: PodSandbox, withinMs: number): Promise<void>
  remove(sandbox: PodSandbox): Promise<void>
}

export interface NriPluginOptions {
  /** The runtime's socket. */
  readonly socket: string
  readonly events: SandboxEvents
  readonly log: Logger
}

const RUNTIME = 'nri.pkg.api.v1alpha1.Runtime'
const PLUGIN = 'nri.pkg.api.v1alpha1.Plugin'
const NAME = 'culvert'
/** After those that change what is started: plugins are asked in the order of these two digits. */
const INDEX = '90'
const ASKED_FOR = [Event.RUN_POD_SANDBOX, Event.STOP_POD_SANDBOX, Event.REMOVE_POD_SANDBOX]
/** What the runtime grants a plugin to register in. */
const REGISTRATION_MS = 5000
/** What it grants for an answer when it does not say. */
const REQUEST_MS = 2000
/** Part of that which is left to the way there and back, and to a machine that is busy. */
const MARGIN = 0.2
/** Pods of one node, with all that is written on them; more than that is no list of pods. */
const MAX_SYNC_BYTES = 64 * 1024 * 1024
const NOTHING = new Uint8Array(0)
const SKIP_UNKNOWN = { readUnknownFields: false } as const
/** Calls that nobody asked for, and whose answer may be empty. */
const ANSWERED_EMPTY = new Set([
  'Shutdown',
  'CreateContainer',
  'UpdateContainer',
  'StopContainer',
  'UpdatePodSandbox',
])

export class NriPlugin {
  readonly #options: NriPluginOptions
  #runtime: string | undefined
  #answerMs = REQUEST_MS * (1 - MARGIN)
  #isSynchronized = false
  #pending: PodSandbox[] = []
  #pendingBytes = 0

  constructor(options: NriPluginOptions) {
    this.#options = options
  }

  /** Name and version of the runtime, while there is a registration. */
  get runtime(): string | undefined {
    return this.#runtime
  }

  /** The runtime has told all that it has, and tells of every sandbox from there on. */
  get isSynchronized(): boolean {
    return this.#isSynchronized
  }

  /** Serves until the connection ends, by either side or by the signal. Gives why; never rejects. */
  async serve(signal: AbortSignal): Promise<CulvertError> {
    const link = new NriLink(createConnection(this.#options.socket), (service, method, payload) =>
      service === PLUGIN ? this.#answer(method, payload) : Promise.resolve(undefined),
    )
    const close = () => link.close()
    signal.addEventListener('abort', close, { once: true })
    if (signal.aborted) close()
    try {
      const request = create(RegisterPluginRequestSchema, { pluginName: NAME, pluginIdx: INDEX })
      await link.call(
        RUNTIME,
        'RegisterPlugin',
        toBinary(RegisterPluginRequestSchema, request),
        REGISTRATION_MS,
      )
      return await link.ended
    } catch (err) {
      link.close()
      return err instanceof CulvertError
        ? err
        : new CulvertError('PROTOCOL', 'NRI: no registration', { cause: err })
    } finally {
      signal.removeEventListener('abort', close)
      this.#isSynchronized = false
      this.#runtime = undefined
    }
  }

  async #answer(method: string, payload: Uint8Array): Promise<Uint8Array | undefined> {
    if (ANSWERED_EMPTY.has(method)) return NOTHING
    if (method === 'Configure') return this.#configure(payload)
    if (method === 'Synchronize') return this.#synchronize(payload)
    if (method === 'StateChange') return this.#changed(payload)
    // Newer runtimes call by other names first, and then by these.
    return undefined
  }

  #configure(payload: Uint8Array): Uint8Array {
    const { runtimeName, runtimeVersion, requestTimeout } = fromBinary(
      ConfigureRequestSchema,
      payload,
      SKIP_UNKNOWN,
    )
    this.#runtime = printable(`${runtimeName} ${runtimeVersion}`.trim(), 100)
    const grantedMs = Number(requestTimeout)
    this.#answerMs = (grantedMs > 0 ? grantedMs : REQUEST_MS) * (1 - MARGIN)
    this.#options.log.info(
      { runtime: this.#runtime, answerWithinMs: this.#answerMs },
      'registered with the container runtime',
    )
    const events = ASKED_FOR.reduce((mask, event) => mask | (1 << (event - 1)), 0)
    return toBinary(ConfigureResponseSchema, create(ConfigureResponseSchema, { events }))
  }

  #synchronize(payload: Uint8Array): Uint8Array {
    const { pods, more } = fromBinary(SynchronizeRequestSchema, payload, SKIP_UNKNOWN)
    this.#pendingBytes += payload.length
    if (this.#pendingBytes > MAX_SYNC_BYTES)
      throw new CulvertError('PROTOCOL', `NRI: more than ${MAX_SYNC_BYTES} bytes of pods`)
    this.#pending.push(...pods)
    if (!more) {
      const sandboxes = this.#pending
      this.#pending = []
      this.#pendingBytes = 0
      this.#isSynchronized = true
      this.#options.events.synchronized(sandboxes)
    }
    return toBinary(SynchronizeResponseSchema, create(SynchronizeResponseSchema, { more }))
  }

  /** Never rejects. */
  async #changed(payload: Uint8Array): Promise<Uint8Array> {
    const { events, log } = this.#options
    let told: StateChangeEvent
    try {
      told = fromBinary(StateChangeEventSchema, payload, SKIP_UNKNOWN)
    } catch (err) {
      log.error({ err: errorText(err) }, 'NRI event not understood')
      return NOTHING
    }
    const { event, pod } = told
    if (!pod) return NOTHING
    const work =
      event === Event.RUN_POD_SANDBOX
        ? events.run(pod, this.#answerMs)
        : event === Event.STOP_POD_SANDBOX
          ? events.stop(pod, this.#answerMs)
          : event === Event.REMOVE_POD_SANDBOX
            ? events.remove(pod)
            : Promise.resolve()
    const over = new AbortController()
    await Promise.race([
      work.catch((err: unknown) =>
        log.error(
          { pod: `${pod.namespace}/${pod.name}`, event: Event[event], err: errorText(err) },
          'NRI event failed',
        ),
      ),
      sleep(this.#answerMs, undefined, { signal: over.signal }).catch(() => undefined),
    ])
    over.abort()
    return NOTHING
  }
}
