/** How the server gets on with the API server, by the resource that is listed and watched. */
import { Counter, Gauge, type Registry } from 'prom-client'
import type { ReflectorObserver } from './reflector.ts'
import { WATCHED, type WatchedResource } from './resources.ts'

/** Makes the metrics; gives who is told of what happens to a resource. */
export function reflectorMetrics(registry: Registry): (resource: WatchedResource) => ReflectorObserver {
  const common = { labelNames: ['resource'] as const, registers: [registry] }
  const listed = new Gauge({
    name: 'culvert_ca_kubernetes_listed',
    help: 'Whether everything has been listed from the API server once.',
    ...common,
  })
  const lists = new Counter({
    name: 'culvert_ca_kubernetes_lists_total',
    help: 'Times that everything was listed: the first one, and each time the server had forgotten where we were.',
    ...common,
  })
  const watches = new Counter({
    name: 'culvert_ca_kubernetes_watches_ended_total',
    help: 'Watches that ended, and were begun again where they had ended.',
    ...common,
  })
  const failures = new Counter({
    name: 'culvert_ca_kubernetes_failures_total',
    help: 'Lists and watches that failed, by whatever cause.',
    ...common,
  })
  const lastEvent = new Gauge({
    name: 'culvert_ca_kubernetes_last_event_timestamp_seconds',
    help: 'When the last event or bookmark came, Unix seconds.',
    ...common,
  })
  for (const { name: resource } of WATCHED) {
    listed.set({ resource }, 0)
    for (const counter of [lists, watches, failures]) counter.inc({ resource }, 0)
  }
  return ({ name: resource }) => ({
    listed() {
      listed.set({ resource }, 1)
      lists.inc({ resource })
    },
    watchEnded: () => watches.inc({ resource }),
    failed: () => failures.inc({ resource }),
    event: () => lastEvent.set({ resource }, Math.floor(Date.now() / 1000)),
  })
}
