/** What it takes to be there: memory and processor time of agents and ca-server while little happens. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Measured } from './table.ts'
import { agentUsage, controlUsage, type BenchWorld } from './world.ts'

/** After the last change, so that memory that is to be given back has been. */
const SETTLE_MS = 15_000
const REST_MS = 20_000

export async function measureRest(world: BenchWorld): Promise<Record<string, Measured>> {
  world.progress('at rest')
  await sleep(SETTLE_MS)
  const before = await agentUsage(world)
  const startedAt = performance.now()
  await sleep(REST_MS)
  const after = await agentUsage(world)
  const elapsedMs = performance.now() - startedAt
  const control = await controlUsage(world)
  const cpu = after.map((usage, at) => (100 * (usage.cpuMs - before[at]!.cpuMs)) / elapsedMs)
  const resident = after.map(usage => usage.residentBytes / 1e6)
  const shared = after.map(usage => usage.proportionalBytes / 1e6)
  const each = control.map(usage => usage.residentBytes / 1e6)
  return {
    'memory-agents': {
      text: `${list(resident)} MB, supervisor and socket holders included (${list(shared)} MB with shared pages counted once)`,
      value: Math.max(...resident),
      samples: { resident, proportional: shared },
    },
    'memory-control': {
      text: `${list(each)} MB`,
      value: Math.max(...each),
      samples: { resident: each },
    },
    'cpu-rest': {
      text: `${cpu.map(percent => percent.toFixed(1)).join(', ')} % of a core`,
      value: Math.max(...cpu),
      samples: { percent: cpu },
    },
  }
}

function list(values: readonly number[]): string {
  return values.map(value => value.toFixed(0)).join(' and ')
}
