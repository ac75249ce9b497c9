/** The cluster's world, kept by the real source from a server that tests control. */
import type { Test } from 'tap'
import type { ApiAccess } from '../../ca-server/kubernetes/access.ts'
import { ApiClient } from '../../ca-server/kubernetes/api-client.ts'
import { kubernetesSource, type KubernetesSourceOptions } from '../../ca-server/kubernetes/source.ts'
import { World, type WorldChange } from '../../ca-server/world/world.ts'
import type { KubeObject } from '../../lib/kube/objects.ts'
import type { WorldSource } from '../../ca-server/world/source.ts'
import type { ApiServer } from './api-server.ts'
import { quietLog, type Line } from './quiet-log.ts'

export interface Reflected {
  readonly world: World
  readonly source: WorldSource
  readonly changes: WorldChange[]
  /** What the changes add up to, by kind and key. */
  readonly held: Map<string, KubeObject>
  readonly lines: Line[]
  /** Ends as soon as the condition holds; it is looked at after each change of the world. */
  readonly until: (condition: () => boolean) => Promise<void>
  /** Ends when the world is whole and every kind is watched. */
  readonly settled: () => Promise<void>
  readonly stop: () => void
}

const IGNORED = {
  listed: () => undefined,
  watchEnded: () => undefined,
  failed: () => undefined,
  event: () => undefined,
}
export const KINDS = ['Node', 'Namespace', 'Service', 'EndpointSlice', 'Pod'] as const

export function accessTo(api: ApiServer): ApiAccess {
  return {
    server: new URL(`http://127.0.0.1:${api.port}`),
    credentials: () => Promise.resolve({ tls: {}, headers: {} }),
  }
}

/** Waits are short, so that tests are. */
export async function reflect(
  t: Pick<Test, 'teardown'>,
  api: ApiServer,
  reflector: KubernetesSourceOptions['reflector'] = {},
): Promise<Reflected> {
  const { log, lines } = quietLog()
  const client = new ApiClient(accessTo(api))
  const world = new World()
  const changes: WorldChange[] = []
  const held = new Map<string, KubeObject>()
  const waiting = new Set<() => void>()
  world.onChange(batch => {
    changes.push(...batch)
    for (const { kind, key, after } of batch)
      if (after) held.set(`${kind} ${key}`, after)
      else held.delete(`${kind} ${key}`)
    for (const resolve of waiting) resolve()
    waiting.clear()
  })
  const source = kubernetesSource({
    client,
    log,
    observe: () => IGNORED,
    reflector: { backoff: { firstMs: 1, maxMs: 20 }, ...reflector },
  })
  const stopping = new AbortController()
  const stop = (): void => {
    stopping.abort()
    client.close()
  }
  t.teardown(stop)
  await source.start(world, stopping.signal)
  const until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await new Promise<void>(resolve => waiting.add(resolve))
  }
  return {
    world,
    source,
    changes,
    held,
    lines,
    until,
    settled: async () => {
      await until(() => world.isSynced)
      await api.until(() => KINDS.every(kind => api.watchers(kind) > 0))
    },
    stop,
  }
}
