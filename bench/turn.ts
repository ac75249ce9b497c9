/**
 * One arm's turn in one round: a world of its own, the applications, the arm, everything that is to be measured, and the
 * end of all of it, however it goes.
 */
import type { Arm, RunningArm } from './arms/arm.ts'
import { clientArgv, clientEnv, Situation, type Measurement, type Timing } from './measure/measurement.ts'
import { START_METRIC, startAndWait, stillCarries } from './measure/start.ts'
import { BenchProcess } from './process.ts'
import type { Progress, Recorder, Turn } from './recorder.ts'
import { APP_PORT, World } from './world.ts'

export interface TurnOptions {
  /** A name that a lab may have. */
  readonly worldName: string
  readonly measurements: readonly Measurement[]
  readonly timing: Timing
  readonly recorder: Recorder
  readonly progress: Progress
  /** Called once the arm carries. */
  readonly onStarted: (arm: RunningArm, config: string) => void
  readonly signal: AbortSignal
}

/**
 * Warm-up of proxies and applications before anything but memory at rest, in multiples of that of a measurement. What runs
 * for months is not to be measured in the seconds in which its code is compiled.
 */
const FIRST_WARM_UP = 8

/** Throws when the arm does not start, ends too early, or lets something past itself; the signal's reason. */
export async function runTurn(arm: Arm, round: number, options: TurnOptions): Promise<void> {
  const { worldName, signal, progress, recorder } = options
  const turn: Turn = { arm: arm.name, round }
  const isPlain = arm.name === 'none'
  progress.measuring('start')
  const world = await World.build(worldName)
  const servers: BenchProcess[] = []
  try {
    await startServers(world, servers, options)
    const setup = await arm.set(world, signal)
    try {
      const { arm: running, tookMs } = await startAndWait(world, setup, isPlain, signal)
      options.onStarted(running, setup.config)
      if (!isPlain) recorder.record(turn, { [START_METRIC.id]: tookMs })
      await measureAll(turn, world, running, options)
      await stillCarries(world, isPlain, signal)
    } finally {
      await setup.stop()
    }
  } finally {
    await Promise.all(servers.map(server => server.stop('SIGKILL')))
    await world.remove()
  }
}

async function measureAll(
  turn: Turn,
  world: World,
  running: RunningArm,
  { measurements, timing, recorder, progress, signal }: TurnOptions,
): Promise<void> {
  const wanted = new Set(recorder.metrics.map(({ id }) => id))
  const at = new Situation(world, running, timing, wanted, signal)
  let isWarm = false
  for (const measurement of measurements) {
    if (!isWarm && !measurement.isAtRest) {
      progress.measuring('warm-up')
      await warmUp(at)
      isWarm = true
    }
    progress.measuring(measurement.id)
    try {
      recorder.record(turn, await measurement.run(at))
    } catch (err) {
      signal.throwIfAborted()
      recorder.failed(turn, measurement.metrics(timing), err)
      running.check() // an arm that has ended has no more to tell
    }
  }
}

async function warmUp(at: Situation): Promise<void> {
  const seconds = at.timing.warmUpSeconds * FIRST_WARM_UP
  try {
    await at.client('round-trips', APP_PORT.echo, 16_384, seconds, 0)
    await at.client('connections', APP_PORT.echo, 32, seconds)
  } catch {
    at.signal.throwIfAborted() // what is wrong will show in what is measured
  }
}

/** The applications of the server's pod. Those that were started are in `servers` even when another was not. */
async function startServers(
  world: World,
  servers: BenchProcess[],
  { measurements, signal }: TurnOptions,
): Promise<void> {
  const app = new BenchProcess({
    name: 'bench/clients/server.ts',
    argv: world.podArgv('server', clientArgv('server', APP_PORT.echo, APP_PORT.who, APP_PORT.http)),
    env: clientEnv(),
  })
  servers.push(app)
  await app.line(signal)
  if (!measurements.some(({ tools }) => tools.includes('iperf3'))) return
  const argv = ['iperf3', '--server', '--port', String(APP_PORT.iperf), '--forceflush']
  const iperf = new BenchProcess({ name: 'iperf3 --server', argv: world.podArgv('server', argv) })
  servers.push(iperf)
  while (!(await iperf.line(signal)).includes('listening'));
}
