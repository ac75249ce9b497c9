/**
 * From the start of the agents to the first connection that they carry. The client that tries is there before them; that
 * its connection was carried, and not let through, it knows from the server.
 */
import type { ArmSetup, RunningArm } from '../arms/arm.ts'
import type { MetricInfo } from '../model.ts'
import { BenchProcess } from '../process.ts'
import { APP_PORT, type World } from '../world.ts'
import { clientArgv, clientEnv, shown } from './measurement.ts'

const TIMEOUT_SECONDS = 15

export const START_METRIC: MetricInfo = {
  id: 'start',
  title: 'start to first connection',
  unit: 'ms',
  better: 'lower',
  command: shown(clientArgv('first', 'SERVER', APP_PORT.who, TIMEOUT_SECONDS, 'carried')),
  about:
    'From starting both agents until the answer to the first connection that they have carried; certificates and control plane are there before.',
}

export interface Started {
  readonly arm: RunningArm
  readonly tookMs: number
}

/** Starts the agents and waits until they carry. Throws `TOOL` when they do not, saying how far it went. */
export async function startAndWait(
  world: World,
  setup: ArmSetup,
  isPlain: boolean,
  signal: AbortSignal,
): Promise<Started> {
  const probe = beginProbe(world, isPlain)
  try {
    await probe.line(signal)
    const arm = setup.start()
    const { atNs } = JSON.parse(await probe.line(signal)) as { atNs: string }
    arm.check()
    return { arm, tookMs: Number(BigInt(atNs) - arm.startedAtNs) / 1e6 }
  } finally {
    await probe.stop('SIGKILL')
  }
}

/** Throws `TOOL` unless connections are carried now as they should be. */
export async function stillCarries(world: World, isPlain: boolean, signal: AbortSignal): Promise<void> {
  const probe = beginProbe(world, isPlain)
  try {
    await probe.line(signal)
    await probe.line(signal)
  } finally {
    await probe.stop('SIGKILL')
  }
}

function beginProbe(world: World, isPlain: boolean): BenchProcess {
  const argv = clientArgv(
    'first',
    world.server.ip,
    APP_PORT.who,
    TIMEOUT_SECONDS,
    isPlain ? 'plain' : 'carried',
  )
  return new BenchProcess({
    name: 'the first connection',
    argv: world.podArgv('client', argv),
    env: clientEnv(),
  })
}
