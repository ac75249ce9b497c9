/**
 * The world from the API server: one reflector for each kind of objects. The world is whole when each has listed once;
 * from then on every event goes in as it comes.
 */
import { Fields } from '../../lib/kube/fields.ts'
import type { KubeKind, KubeObject } from '../../lib/kube/objects.ts'
import { readObject } from '../../lib/kube/read.ts'
import type { Logger } from '../../lib/log.ts'
import type { WorldSource } from '../world/source.ts'
import type { World } from '../world/world.ts'
import type { ApiClient } from './api-client.ts'
import { Compactor } from './compact.ts'
import { Reflector, type ReflectorObserver, type ReflectorOptions } from './reflector.ts'
import { WATCHED, type WatchedResource } from './resources.ts'
import { slim } from './slim.ts'

export interface KubernetesSourceOptions {
  readonly client: ApiClient
  /** By the name of the resource: who is told of what happens. */
  readonly observe: (resource: WatchedResource) => ReflectorObserver
  readonly log: Logger
  /** Of every reflector, where they differ from its defaults. */
  readonly reflector?: Partial<
    Pick<ReflectorOptions, 'backoff' | 'silenceMs' | 'maxPageBytes' | 'maxEventBytes'>
  >
}

export function kubernetesSource(options: KubernetesSourceOptions): WorldSource {
  const { client, observe, log } = options
  let reflectors: readonly Reflector[] = []
  return {
    start(world, signal) {
      const compactor = new Compactor()
      reflectors = WATCHED.map(
        resource =>
          new Reflector({
            ...options.reflector,
            resource,
            client,
            log,
            read: (raw, problems) => readApiObject(resource.kind, raw, compactor, problems),
            sink: sinkOf(world, resource.kind),
            observer: {
              ...observe(resource),
              listed(objects) {
                observe(resource).listed(objects)
                if (reflectors.every(({ hasListed }) => hasListed)) world.completed()
              },
            },
          }),
      )
      for (const reflector of reflectors) void reflector.run(signal) // it never rejects, and ends with the signal
      log.info({ server: client.server }, 'listing the cluster')
      return Promise.resolve()
    },
    pending: () =>
      reflectors
        .filter(({ hasListed }) => !hasListed)
        .map(({ resource, fault }) => `the first list of ${resource.name}${fault ? ` (${fault})` : ''}`),
  }
}

function sinkOf(world: World, kind: KubeKind): ReflectorOptions['sink'] {
  return {
    put: objects => world.apply(objects, []),
    remove: key => world.apply([], [{ kind, key }]),
    keepOnly: keys => world.keepOnly(kind, keys),
  }
}

/** An object of the API in the form in which it is kept. Problems are added to the list: then it must not be used. */
export function readApiObject(
  kind: KubeKind,
  raw: unknown,
  compactor: Compactor,
  problems: string[],
): KubeObject {
  return compactor.compact(readObject(kind, new Fields(slim(kind, raw), '', problems)))
}
