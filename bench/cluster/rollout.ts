/** Agents are replaced by the DaemonSet, as in an upgrade: what happens to new connections, and to those that are open. */
import { setTimeout as sleep } from 'node:timers/promises'
import { median } from '../stats.ts'
import { SYSTEM } from '../../test/cluster/agents.ts'
import { holdConnection, startLoad } from '../../test/cluster/clients.ts'
import type { Measured } from './table.ts'
import { clientOf, serverIp, type BenchWorld } from './world.ts'

const RATE = 100
const OPEN = 10
/** Five minutes would be waited for on each node; how it ends is the same. */
const GRACE_SECONDS = 60
const AGENTS = 'ds/culvert-agent'
const CLIENT = clientOf('mesh')

export async function measureRollout(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl, progress } = world
  progress('agents are given a shorter grace period')
  const { template } = (await kubectl.get('-n', SYSTEM, AGENTS)).spec
  const usual = template?.spec.terminationGracePeriodSeconds ?? 0
  await setGrace(world, GRACE_SECONDS)
  progress('agents are rolled out')
  const ip = await serverIp(world, 'mesh')
  const held = await Promise.all(
    Array.from({ length: OPEN }, () => holdConnection(kubectl, CLIENT, ip, 7000)),
  )
  const startedAt = performance.now()
  const ends = held.map(async ({ result }) => {
    const { how } = await result
    return { how, afterMs: performance.now() - startedAt }
  })
  const load = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, RATE)
  await kubectl.ok(['-n', SYSTEM, 'rollout', 'restart', AGENTS])
  await whenRolledOut(world)
  const { requests, failures, slowestMs } = await load.stop()
  const open = await Promise.all(
    ends.map(end => Promise.race([end, sleep(1000, { how: 'open', afterMs: NaN } as const)])),
  )
  await Promise.all(held.map(async connection => await connection.stop()))
  await setGrace(world, usual)
  const cut = open.filter(({ how }) => how !== 'open')
  const lived = cut.length > 0 ? median(cut.map(({ afterMs }) => afterMs)) : undefined
  return {
    'rollout-new': {
      text: `${failures.length} of ${requests} fail; the slowest took ${slowestMs.toFixed(0)} ms`,
      value: failures.length,
    },
    'rollout-open': {
      text:
        lived === undefined
          ? `all ${OPEN} live on`
          : `${cut.length} of ${OPEN} cut (${[...new Set(cut.map(({ how }) => how))].join(', ')}) after ${(lived / 1000).toFixed(1)} s, with a grace period of ${GRACE_SECONDS} s here; the default is ${usual} s`,
      ...(lived === undefined ? {} : { value: lived }),
    },
  }
}

async function setGrace(world: BenchWorld, seconds: number): Promise<void> {
  const env = [{ name: 'TERMINATION_GRACE_PERIOD_SECONDS', value: String(seconds) }]
  const spec = { terminationGracePeriodSeconds: seconds, containers: [{ name: 'agent', env }] }
  await world.kubectl.ok([
    '-n',
    SYSTEM,
    'patch',
    AGENTS,
    '--type=strategic',
    `--patch=${JSON.stringify({ spec: { template: { spec } } })}`,
  ])
  await whenRolledOut(world)
}

async function whenRolledOut({ kubectl }: BenchWorld): Promise<void> {
  await kubectl.ok(['-n', SYSTEM, 'rollout', 'status', AGENTS, '--timeout=400s'])
}
