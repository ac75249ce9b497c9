/**
 * What this server writes into its cluster, put together: the root that it keeps, roots that it publishes, statuses and
 * Events of pods, the lease of the replica that leads and what that one does. Permissions, no others:
 *
 * | verbs | resource | where | for |
 * |---|---|---|---|
 * | create | tokenreviews.authentication.k8s.io | cluster | who calls |
 * | patch | pods | cluster | the annotation `culvert.dev/status` |
 * | create, patch | events.events.k8s.io | cluster | Events are in the namespace of what they are about |
 * | create | secrets, configmaps, leases.coordination.k8s.io | own namespace | a name cannot be asked for before it is there |
 * | get | secrets `culvert-ca-root` | own namespace | the own root; not with an intermediate |
 * | get, patch | configmaps `culvert-root` | own namespace | the roots that agents trust |
 * | get, update | leases.coordination.k8s.io `culvert-ca` | own namespace | who leads |
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Gauge } from 'prom-client'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { RootStore } from '../authority/root-store.ts'
import type { Metrics } from '../metrics.ts'
import type { Notices } from '../reports/notices.ts'
import type { Observed } from '../reports/observed.ts'
import type { World } from '../world/world.ts'
import type { ApiClient } from './api-client.ts'
import { EventRecorder } from './event-recorder.ts'
import { Leader } from './leader.ts'
import { LEASE, ROOT_CONFIG_MAP, ROOT_SECRET } from './names.ts'
import { tellNotices } from './notice-events.ts'
import { RootPublisher } from './root-publisher.ts'
import { SecretRootStore } from './secret-root-store.ts'
import { StatusWriter } from './status-writer.ts'
import { Sweep } from './sweep.ts'

export interface DeskOptions {
  readonly api: ApiClient
  readonly world: World
  /** Of this replica. */
  readonly namespace: string
  readonly podName: string
  /** Of the agents, `namespace/service-account`. */
  readonly agentAccounts: ReadonlySet<string>
  readonly metrics: Metrics
  readonly log: Logger
  readonly signal: AbortSignal
}

const SWEEP_EVERY_MS = 10_000

export class ClusterDesk {
  readonly annotations: StatusWriter
  /** Where the own root is, when the authority has one. */
  readonly rootStore: RootStore
  readonly #options: DeskOptions
  readonly #recorder: EventRecorder
  readonly #leader: Leader
  #publisher: RootPublisher | undefined

  constructor(options: DeskOptions) {
    const { api, namespace, podName, metrics, log, signal } = options
    this.#options = options
    this.annotations = new StatusWriter({ api, metrics, log, signal })
    this.#recorder = new EventRecorder({ api, instance: podName, metrics, log, signal })
    this.#leader = new Leader({ api, namespace, lease: LEASE, podName, log })
    const configMap = ROOT_CONFIG_MAP
    this.rootStore = new SecretRootStore({ api, namespace, secret: ROOT_SECRET, configMap, log, signal })
    this.#observe()
  }

  /** Makes Events of what agents have told. */
  readonly noticed = (notices: Notices): void => {
    tellNotices(this.#options.world, this.#recorder, notices)
  }

  /** The roots are others. */
  rootsChanged(): void {
    this.#publisher?.look()
  }

  /** Publishes roots, leads when it is our turn. Ends after the signal, when the lease is given back. Never rejects. */
  async run(observed: Observed, roots: () => readonly string[]): Promise<void> {
    const { api, namespace, log, signal } = this.#options
    const isLeading = (): boolean => this.#leader.isLeading
    const publisher = new RootPublisher({ api, namespace, configMap: ROOT_CONFIG_MAP, roots, isLeading, log })
    this.#publisher = publisher
    this.#leader.onChange(() => publisher.look())
    await Promise.all([publisher.run(signal), this.#sweep(observed), this.#leader.run(signal)])
  }

  async #sweep(observed: Observed): Promise<void> {
    const { world, agentAccounts, log, signal } = this.#options
    const sweep = new Sweep({
      world,
      observed,
      annotations: this.annotations,
      recorder: this.#recorder,
      agentAccounts,
      isLeading: () => this.#leader.isLeading,
    })
    this.#leader.onChange(() => sweep.reset())
    while (!signal.aborted) {
      if (this.#leader.isLeading)
        await sweep
          .look()
          .catch((err: unknown) => log.error({ err: errorText(err) }, 'cluster not looked at'))
      await sleep(SWEEP_EVERY_MS, undefined, { signal }).catch(() => undefined)
    }
  }

  #observe(): void {
    const { registry } = this.#options.metrics
    const leader = this.#leader
    const { annotations } = this
    registry.registerMetric(
      new Gauge({
        name: 'culvert_ca_leader',
        help: 'Whether this replica does what only one may do.',
        registers: [],
        collect() {
          this.set(leader.isLeading ? 1 : 0)
        },
      }),
    )
    registry.registerMetric(
      new Gauge({
        name: 'culvert_ca_status_writes_waiting',
        help: 'Pods whose status annotation is still to be written.',
        registers: [],
        collect() {
          this.set(annotations.waiting)
        },
      }),
    )
  }
}
