/** A discovery client that keeps what it is told, as an agent does. */
import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { WorkloadInfoSchema, type WorkloadInfo } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from '../../lib/proto/gen/envoy/discovery_pb.js'
import { AddressSchema, type Service, type Workload } from '../../lib/proto/gen/istio/workload_pb.js'
import type { Clients } from './ca-server.ts'

export const ADDRESS = 'type.googleapis.com/istio.workload.Address'
export const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization'

export class DeltaClient {
  readonly responses: DeltaDiscoveryResponse[] = []
  /** By type and name: version and encoded resource. */
  readonly held = new Map<string, Map<string, { version: string; bytes: Uint8Array }>>()
  /** What ended the stream; undefined while it runs and after an orderly end. */
  failure: unknown
  acknowledges = true
  readonly ended: Promise<void>
  readonly #controller = new AbortController()
  readonly #waiting = new Set<() => void>()
  readonly #queue: DeltaDiscoveryRequest[] = []
  #wake: () => void = () => undefined
  #isClosing = false

  constructor({ discovery }: Clients) {
    const responses = discovery.deltaAggregatedResources(this.#requests(), {
      signal: this.#controller.signal,
    })
    this.ended = this.#read(responses)
  }

  send(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): void {
    this.#queue.push(create(DeltaDiscoveryRequestSchema, request))
    this.#wake()
  }

  /** Everything of a type, with what is already held. */
  subscribe(typeUrl: string, initialResourceVersions: Record<string, string> = {}): void {
    this.send({ typeUrl, initialResourceVersions, node: { id: 'test-client' } })
  }

  /** Ends when the condition holds after some response. Rejects when the stream ends before. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#controller.signal.aborted || this.failure !== undefined)
        throw new Error('the stream ended before', { cause: this.failure })
      await new Promise<void>(resolve => this.#waiting.add(resolve))
    }
  }

  names(typeUrl = ADDRESS): string[] {
    return [...(this.held.get(typeUrl)?.keys() ?? [])].sort()
  }

  versions(typeUrl = ADDRESS): Record<string, string> {
    return Object.fromEntries(
      [...(this.held.get(typeUrl) ?? [])].map(([name, { version }]) => [name, version]),
    )
  }

  bytes(name: string, typeUrl = ADDRESS): Uint8Array | undefined {
    return this.held.get(typeUrl)?.get(name)?.bytes
  }

  workload(name: string): Workload | undefined {
    const bytes = this.bytes(name)
    const { type } = bytes ? fromBinary(AddressSchema, bytes) : {}
    return type?.case === 'workload' ? type.value : undefined
  }

  info(name: string): WorkloadInfo | undefined {
    const config = this.workload(name)?.extensions.find(
      extension => extension.name === 'culvert.dev/workload',
    )?.config
    return config && anyUnpack(config, WorkloadInfoSchema)
  }

  service(name: string): Service | undefined {
    const bytes = this.bytes(name)
    const { type } = bytes ? fromBinary(AddressSchema, bytes) : {}
    return type?.case === 'service' ? type.value : undefined
  }

  /** Ends the requests; the server then ends the stream. */
  halfClose(): void {
    this.#isClosing = true
    this.#wake()
  }

  async close(): Promise<void> {
    this.#controller.abort()
    await this.ended
  }

  async *#requests(): AsyncGenerator<DeltaDiscoveryRequest> {
    for (;;) {
      const next = this.#queue.shift()
      if (next) yield next
      else if (this.#isClosing) return
      else await new Promise<void>(resolve => (this.#wake = resolve))
    }
  }

  async #read(responses: AsyncIterable<DeltaDiscoveryResponse>): Promise<void> {
    try {
      for await (const response of responses) {
        this.#take(response)
        this.#tell()
      }
    } catch (err) {
      this.failure = err
    }
    this.#tell()
  }

  #take(response: DeltaDiscoveryResponse): void {
    this.responses.push(response)
    const { typeUrl, nonce } = response
    let map = this.held.get(typeUrl)
    if (!map) this.held.set(typeUrl, (map = new Map()))
    for (const name of response.removedResources) map.delete(name)
    for (const { name, version, resource } of response.resources)
      map.set(name, { version, bytes: resource!.value })
    if (this.acknowledges) this.send({ typeUrl, responseNonce: nonce })
  }

  #tell(): void {
    for (const resolve of this.#waiting) resolve()
    this.#waiting.clear()
  }
}
