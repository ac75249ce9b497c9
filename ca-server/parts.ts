/**
 * The parts of the ca-server that know and decide, before anybody may ask them: an authority, a world, what agents
 * observed in it, who vouches for tokens. From files, or from a cluster.
 */
import { join } from 'node:path'
import type { Logger } from '../lib/log.ts'
import { Authority } from './authority/authority.ts'
import type { CaConfig } from './config.ts'
import { Publisher } from './discovery/publisher.ts'
import { openAccess } from './kubernetes/access.ts'
import { ApiClient } from './kubernetes/api-client.ts'
import { ClusterDesk } from './kubernetes/desk.ts'
import { reflectorMetrics } from './kubernetes/metrics.ts'
import { kubernetesSource } from './kubernetes/source.ts'
import type { Metrics } from './metrics.ts'
import { Observed } from './reports/observed.ts'
import { FileObservedStore, NO_STORE } from './reports/store.ts'
import type { TokenAuthenticator } from './tokens/authenticator.ts'
import { TokenReviewAuthenticator } from './tokens/token-review.ts'
import { fileSource } from './world/file-source.ts'
import type { WorldSource } from './world/source.ts'
import { World } from './world/world.ts'

type Closer = () => Promise<void> | void

/** What has to end. */
export interface Ending {
  /** Called one after the other, the last one first, before the signal of all parts aborts. */
  readonly closers: Closer[]
  /** Waited for after that. */
  readonly running: Promise<unknown>[]
  /** Called when nobody is left. */
  readonly last: Closer[]
}

export interface Parts {
  /** What is written into the cluster; undefined with a world file. */
  readonly desk: ClusterDesk | undefined
  readonly authority: Authority
  readonly authenticator: TokenAuthenticator
  readonly source: WorldSource
  readonly world: World
  readonly observed: Observed
  readonly publisher: Publisher
}

/** What is still to come before agents can be told anything. */
export function pendingOf({ source, publisher }: Parts): readonly string[] {
  if (publisher.isReady) return []
  const pending = source.pending()
  return pending.length > 0 ? pending : ['the first publication']
}

/** What knows and decides, before anybody may ask. */
export async function openParts(
  config: CaConfig,
  metrics: Metrics,
  log: Logger,
  signal: AbortSignal,
  ending: Ending,
): Promise<Parts> {
  const world = new World({ strictByDefault: config.strictByDefault })
  const api = config.kubernetes && new ApiClient(await openAccess(config.kubernetes))
  ending.last.push(() => api?.close())
  const desk =
    api &&
    new ClusterDesk({
      api,
      world,
      namespace: config.podNamespace,
      podName: config.podName,
      agentAccounts: config.trustedNodeAccounts,
      metrics,
      log: log.child({ component: 'cluster' }),
      signal,
    })
  const { authority: source } = config
  const authority = await Authority.open({
    trustDomain: config.trustDomain,
    source: desk && source.kind === 'own-root' ? { kind: 'kept-root', store: desk.rootStore } : source,
    engine: config.engine,
    log: log.child({ component: 'authority' }),
  })
  const observed = await Observed.open({
    world,
    store: desk ? NO_STORE : new FileObservedStore(join(config.dataDir, 'observed.json')),
    annotations: desk?.annotations,
    log: log.child({ component: 'reports' }),
  })
  const publisher = new Publisher({
    world,
    observed,
    settings: config,
    roots: () => authority.roots,
    log: log.child({ component: 'discovery' }),
  })
  ending.closers.push(() => publisher.close())
  return {
    desk,
    authority,
    authenticator: await openAuthenticator(config, api, world, metrics, log, signal),
    source: openSource(config, api, metrics, log.child({ component: 'world' })),
    world,
    observed,
    publisher,
  }
}

/** Asks the cluster, unless there are keys to verify with. */
async function openAuthenticator(
  { tokenKeys, tokenAudience: audience }: CaConfig,
  api: ApiClient | undefined,
  world: World,
  metrics: Metrics,
  logger: Logger,
  signal: AbortSignal,
): Promise<TokenAuthenticator> {
  const log = logger.child({ component: 'tokens' })
  if (!tokenKeys) {
    const nodeOfPod = (uid: string, namespace: string, account: string): string | undefined => {
      const pod = world.podByUid(uid)
      const isTheirs = pod?.metadata.namespace === namespace && pod.spec.serviceAccountName === account
      return isTheirs ? pod.spec.nodeName : undefined
    }
    return new TokenReviewAuthenticator({ api: api!, audience, nodeOfPod, metrics, log, signal })
  }
  const { JwksAuthenticator } = await import('./tokens/jwks.ts') // its library is not needed in a cluster
  const authenticator = await JwksAuthenticator.open({ ...tokenKeys, audience, log })
  authenticator.follow(signal)
  return authenticator
}

function openSource(
  { worldFile }: CaConfig,
  client: ApiClient | undefined,
  metrics: Metrics,
  log: Logger,
): WorldSource {
  if (client) return kubernetesSource({ client, observe: reflectorMetrics(metrics.registry), log })
  return fileSource({ file: worldFile!, log, failed: () => metrics.worldErrors.inc() })
}
