/** Everything that is measured, in the order in which it is: memory at rest first, what disturbs most last. */
import type { MetricInfo } from '../model.ts'
import { besideFlood } from './beside-flood.ts'
import { bulk } from './bulk.ts'
import { connections } from './connections.ts'
import { http } from './http.ts'
import type { Measurement, Timing } from './measurement.ts'
import { heldMemory, idleMemory } from './memory.ts'
import { openLoop } from './open-loop.ts'
import { besideBulk, roundTrip } from './round-trip.ts'
import { START_METRIC } from './start.ts'

export const MEASUREMENTS: readonly Measurement[] = [
  idleMemory(),
  bulk(1),
  bulk(8),
  roundTrip('rt-64', 64),
  roundTrip('rt-1k', 1024),
  openLoop(),
  besideBulk(),
  connections(1),
  connections(32),
  http(),
  besideFlood(),
  heldMemory(),
]

/** In the order of reports: throughput, latency, connections, processor time, memory, start. */
const REPORTED = ['bulk', 'http', 'conn', 'rt', 'open', 'beside', 'flood', 'cpu', 'rss', 'pss', 'start']

export function allMetrics(timing: Timing): MetricInfo[] {
  const rank = (id: string) => REPORTED.indexOf(id.split('-')[0]!)
  return [...MEASUREMENTS.flatMap(measurement => measurement.metrics(timing)), START_METRIC].sort(
    (a, b) => rank(a.id) - rank(b.id),
  )
}
