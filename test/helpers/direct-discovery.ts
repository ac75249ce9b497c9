/**
 * The ca-server's discovery and an agent's mesh, joined without a network between them: what one says the other takes,
 * a turn of the event loop later. So that hundreds of worlds can be gone through.
 */
import { create } from '@bufbuild/protobuf'
import { Mesh, type MeshOptions } from '../../agent/mesh/mesh.ts'
import { Subscription, type DeltaRequest } from '../../agent/mesh/subscription.ts'
import { DeltaStream } from '../../ca-server/discovery/delta-stream.ts'
import { Publisher } from '../../ca-server/discovery/publisher.ts'
import { spelledOut } from '../../ca-server/discovery/wire.ts'
import { nodeGroup } from '../../ca-server/discovery/workloads.ts'
import { Observed } from '../../ca-server/reports/observed.ts'
import { World } from '../../ca-server/world/world.ts'
import type { KubeObject } from '../../lib/kube/objects.ts'
import { DeltaDiscoveryRequestSchema } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { quietLog } from './quiet-log.ts'

const { log } = quietLog('silent')
const { signal } = new AbortController()

/** Publishes a world. */
export class DirectServer {
  readonly #world = new World()
  readonly publisher: Publisher

  private constructor(world: World, publisher: Publisher) {
    this.#world = world
    this.publisher = publisher
  }

  /** Every pod that is meant to be in the mesh counts as standing in it. */
  static async start(objects: readonly KubeObject[]): Promise<DirectServer> {
    const world = new World()
    const store = { load: async () => [], record: async () => undefined }
    const publisher = new Publisher({
      world,
      observed: await Observed.open({ world, store, log }),
      settings: {
        clusterId: 'Kubernetes',
        clusterDomain: 'cluster.local',
        trustDomain: 'cluster.local',
        tunnelWithoutReport: true,
      },
      roots: () => ['-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n'],
      log,
    })
    const server = new DirectServer(world, publisher)
    server.become(objects)
    return server
  }

  become(objects: readonly KubeObject[]): void {
    this.#world.replaceAll(objects)
    this.publisher.flush()
  }
}

/** An agent's side of it. */
export class DirectAgent {
  readonly mesh: Mesh
  readonly node: string
  readonly #subscriptions: Map<string, Subscription>
  #stream: { readonly server: DirectServer; readonly delta: DeltaStream } | undefined
  #pumping: Promise<void> | undefined
  #hasNews = false
  /** Names asked for, of all streams. */
  asked = 0
  /** Resources told, of all streams. */
  told = 0

  constructor(options: MeshOptions) {
    this.mesh = new Mesh(options)
    this.node = options.nodeName
    const common = { maxRequestBytes: 1_000_000, settleMs: 60_000, quietMs: 60_000, log }
    this.#subscriptions = new Map(
      this.mesh.kinds.map(kind => [kind.typeUrl, new Subscription({ kind, ...common })]),
    )
  }

  /** Resolves when all has been told, in responses of about so many bytes. */
  async connect(server: DirectServer, maxBytes?: number): Promise<void> {
    const delta = new DeltaStream({
      sets: server.publisher.sets,
      always: [nodeGroup(this.node)],
      ...(maxBytes !== undefined && { maxBytes }),
      log,
    })
    const stream = { server, delta }
    this.#stream = stream
    for (const subscription of this.#subscriptions.values())
      this.#send(
        subscription.begin(() => {
          const request = this.#stream === stream && subscription.update()
          if (request) this.#send(request)
          void this.settle()
        }),
      )
    for (const subscription of this.#subscriptions.values()) subscription.opened()
    await this.settle()
  }

  disconnect(): void {
    this.#stream?.delta.close()
    this.#stream = undefined
    for (const subscription of this.#subscriptions.values()) subscription.end()
  }

  /** Takes all that there is to take, and lets those who wait for it have their turn. */
  settle(): Promise<void> {
    this.#hasNews = true
    return (this.#pumping ??= this.#pump())
  }

  async #pump(): Promise<void> {
    while (this.#hasNews) {
      this.#hasNews = false
      await turn()
      for (let taken; (taken = this.#stream?.delta.take()); await turn()) {
        const response = spelledOut(taken)
        this.told += response.resources.length
        const subscription = this.#subscriptions.get(response.typeUrl)!
        this.#send(await subscription.take(response, signal))
      }
      for (let turns = 0; turns < 3; turns++) await turn()
    }
    this.#pumping = undefined
  }

  #send(request: DeltaRequest): void {
    this.asked += request.resourceNamesSubscribe?.length ?? 0
    this.#stream?.delta.receive(create(DeltaDiscoveryRequestSchema, request))
  }
}

function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
