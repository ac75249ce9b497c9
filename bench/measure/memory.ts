/** What the agents hold in memory: when nothing is going on, and with thousands of connections open. */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import type { MetricInfo } from '../model.ts'
import { BenchProcess } from '../process.ts'
import { APP_PORT } from '../world.ts'
import {
  clientArgv,
  clientEnv,
  shown,
  type Measurement,
  type Situation,
  type Value,
  type WhyNot,
} from './measurement.ts'
import { proportionalBytes, residentBytes } from './processes.ts'

const MB = 1_000_000
const HELD = { '1k': 1000, '10k': 10_000 } as const

/** Before any load but the first connection. */
export function idleMemory(): Measurement {
  return {
    id: 'rss-idle',
    tools: [],
    isAtRest: true,
    metrics: ({ idleSeconds }) =>
      memoryMetrics('idle', 'idle', {
        command: `${idleSeconds} s after the first connection: VmRSS of /proc/PID/status, Pss of /proc/PID/smaps_rollup`,
        what: 'after its start, having carried one connection',
      }),
    run: async at => (at.hasAgents ? memory(at, 'idle', at.timing.idleSeconds) : {}),
  }
}

/** Last of all: agents that have been under load. */
export function heldMemory(): Measurement {
  return {
    id: 'rss-held',
    tools: [],
    metrics: ({ settleSeconds }) =>
      Object.entries(HELD).flatMap(([id, count]) =>
        memoryMetrics(id, `${count.toLocaleString('en')} connections`, {
          command: `${shown(clientArgv('hold', 'SERVER', APP_PORT.echo))}; ${settleSeconds} s later VmRSS and Pss`,
          what: `with ${count.toLocaleString('en')} connections open, each having carried a byte, after all loads`,
        }),
      ),
    run: async at => {
      if (!at.hasAgents) return {}
      const holder = new BenchProcess({
        name: 'bench/clients/hold.ts',
        argv: at.world.podArgv('client', clientArgv('hold', at.world.server.ip, APP_PORT.echo)),
        env: clientEnv(),
      })
      const values: Record<string, Value> = {}
      try {
        for (const [id, count] of Object.entries(HELD))
          if (memoryIds(id).some(metric => at.wants(metric)))
            Object.assign(values, await held(at, holder, id, count))
        return values
      } finally {
        await holder.stop('SIGKILL')
      }
    },
  }
}

/** More connections than an arm can have are no reason to lose what was measured with fewer. */
async function held(
  at: Situation,
  holder: BenchProcess,
  id: string,
  count: number,
): Promise<Record<string, Value>> {
  const without = (reason: WhyNot) => Object.fromEntries(memoryIds(id).map(metric => [metric, reason]))
  const { limit } = at.arm
  if (limit && count > limit.connections) return without({ why: limit.why, isKnown: true })
  try {
    holder.tell(String(count))
    await holder.line(at.signal)
    return await memory(at, id, at.timing.settleSeconds)
  } catch (err) {
    at.signal.throwIfAborted()
    return without({ why: errorText(err) })
  }
}

async function memory(at: Situation, id: string, quietSeconds: number): Promise<Record<string, number>> {
  await sleep(quietSeconds * 1000, undefined, { signal: at.signal })
  at.arm.check()
  const trees = at.agentTrees()
  const [rss, pss] = memoryIds(id) as [string, string]
  return {
    [rss]: residentBytes(trees.flat()) / trees.length / MB,
    [pss]: proportionalBytes(trees.flat()) / MB,
  }
}

function memoryIds(id: string): string[] {
  return [`rss-${id}`, `pss-${id}`]
}

function memoryMetrics(
  id: string,
  title: string,
  { command, what }: { command: string; what: string },
): MetricInfo[] {
  const [rss, pss] = memoryIds(id) as [string, string]
  const shared = { unit: 'MB', better: 'lower', command } as const
  return [
    {
      ...shared,
      id: rss,
      title: `memory, ${title}`,
      about: `Resident memory of one agent ${what}: mean of the two; pages that processes of one agent share count in each.`,
    },
    {
      ...shared,
      id: pss,
      title: `memory of both, ${title}`,
      about: `Memory of both agents together ${what}; a page that several processes share counts once.`,
    },
  ]
}
