/**
 * A run of the bench: rounds, in each of which every arm has its turn, first one arm first and then another. Each turn
 * has a world of its own, built and removed. Nothing is repeated because of its result and nothing is left out in
 * silence: what could not be measured is a gap with a reason.
 */
import { CulvertError, errorText } from '../lib/errors.ts'
import { checkLabName } from '../lab/names.ts'
import { armsNamed } from './arms/all.ts'
import type { Arm, ArmOptions, RunningArm } from './arms/arm.ts'
import { describeCommit, describeMachine, withoutPlace } from './machine.ts'
import { allMetrics, MEASUREMENTS } from './measure/all.ts'
import { clientArgv, clientEnv, Situation, type Measurement, type Timing, type Value } from './measure/measurement.ts'
import { commandLine } from './measure/processes.ts'
import { START_METRIC, startAndWait, stillCarries } from './measure/start.ts'
import { SCHEMA, type ArmInfo, type ArmName, type BenchRun, type Gap, type MetricInfo, type Sample } from './model.ts'
import { BenchProcess } from './process.ts'
import { ensureBenchTools } from './tools.ts'
import { APP_PORT, World } from './world.ts'

export interface BenchOptions extends ArmOptions {
  readonly rounds: number
  readonly arms: readonly ArmName[]
  /** Ids of metrics. @default all */
  readonly metrics?: readonly string[]
  readonly timing: Timing
  /** Packages of missing programs may be installed. */
  readonly mayInstall: boolean
  /** The command line, for the record. */
  readonly command: string
}

/** Told what goes on. */
export interface Progress {
  /** Before the first turn. */
  note(text: string): void
  turn(round: number, arm: ArmName): void
  measuring(what: string): void
  measured(metric: MetricInfo, value: number): void
  gap(gap: Gap): void
  turnEnded(): void
}

export interface BenchResult {
  readonly run: BenchRun
  /** How many gaps are there because something went wrong. */
  readonly failures: number
}

/** Warm-up of proxies and applications before anything but memory is measured, in multiples of the usual warm-up. */
const FIRST_WARM_UP = 3

/** Measures. Throws `DENIED` when namespaces cannot be made, `INPUT` for metrics that do not exist; the signal's reason. */
export async function runBench(
  options: BenchOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<BenchResult> {
  const machine = describeMachine()
  const startedAt = new Date().toISOString()
  const bench = await Bench.prepare(options, progress, signal)
  const { commit, isDirty } = await describeCommit()
  for (let round = 1; round <= options.rounds; round++) await bench.round(round)
  return {
    failures: bench.failures,
    run: {
      schema: SCHEMA,
      startedAt,
      finishedAt: new Date().toISOString(),
      commit,
      isDirty,
      command: withoutPlace(options.command),
      machine,
      arms: bench.infos(),
      metrics: bench.metrics,
      rounds: options.rounds,
      samples: bench.samples,
      gaps: bench.gaps,
    },
  }
}

class Bench {
  readonly metrics: readonly MetricInfo[]
  readonly samples: Sample[] = []
  readonly gaps: Gap[] = []
  failures = 0
  readonly #options: BenchOptions
  readonly #progress: Progress
  readonly #signal: AbortSignal
  readonly #arms: readonly Arm[]
  readonly #infos: Map<ArmName, ArmInfo>
  readonly #measurements: readonly Measurement[]
  readonly #worldName = `bench_${process.pid}`

  private constructor(
    options: BenchOptions,
    progress: Progress,
    signal: AbortSignal,
    arms: readonly Arm[],
    infos: Map<ArmName, ArmInfo>,
    missing: ReadonlyMap<string, string>,
  ) {
    this.#options = options
    this.#progress = progress
    this.#signal = signal
    this.#arms = arms
    this.#infos = infos
    checkLabName(this.#worldName)
    const wanted = wantedMetrics(options)
    const lacks = (measurement: Measurement) => measurement.tools.find(tool => missing.has(tool))
    const isWanted = (measurement: Measurement) =>
      measurement.metrics(options.timing).some(({ id }) => wanted.has(id))
    this.#measurements = MEASUREMENTS.filter(each => isWanted(each) && lacks(each) === undefined)
    this.metrics = allMetrics(options.timing)
      .filter(({ id }) => wanted.has(id))
      .map(metric => {
        const source = MEASUREMENTS.find(each => each.metrics(options.timing).some(({ id }) => id === metric.id))
        const why = missing.get((source && lacks(source)) ?? '')
        return why === undefined ? metric : { ...metric, missing: why }
      })
  }

  static async prepare(options: BenchOptions, progress: Progress, signal: AbortSignal): Promise<Bench> {
    const wanted = wantedMetrics(options)
    const arms = armsNamed(options.arms, options)
    const used = MEASUREMENTS.filter(each => each.metrics(options.timing).some(({ id }) => wanted.has(id)))
    const tools = new Set([...arms, ...used].flatMap(each => each.tools))
    const missing = ensureBenchTools([...tools], options.mayInstall, text => progress.note(text))
    const infos = new Map<ArmName, ArmInfo>()
    for (const arm of arms) {
      const tool = arm.tools.find(each => missing.has(each))
      const found = tool === undefined ? await arm.find() : { missing: missing.get(tool)! }
      infos.set(arm.name, { name: arm.name, ...found, commands: [], config: '' })
      if ('missing' in found) progress.note(`${arm.name} does not run: ${found.missing}`)
    }
    for (const [tool, why] of missing)
      if (used.some(each => each.tools.includes(tool))) progress.note(`not measured: ${why}`)
    const there = arms.filter(({ name }) => infos.get(name)!.missing === undefined)
    if (there.length === 0) throw new CulvertError('TOOL', 'no arm of the bench can run here')
    return new Bench(options, progress, signal, there, infos, missing)
  }

  infos(): ArmInfo[] {
    return [...this.#infos.values()]
  }

  /** Every arm once; who is first is another one in each round. */
  async round(round: number): Promise<void> {
    for (let at = 0; at < this.#arms.length; at++) {
      const arm = this.#arms[(at + round - 1) % this.#arms.length]!
      this.#progress.turn(round, arm.name)
      try {
        await this.#turn(arm, round)
      } catch (err) {
        this.#signal.throwIfAborted()
        if (err instanceof CulvertError && err.code === 'DENIED') throw err
        this.#fill(arm, round, errorText(err))
      }
      this.#progress.turnEnded()
    }
  }

  async #turn(arm: Arm, round: number): Promise<void> {
    const signal = this.#signal
    const world = await World.build(this.#worldName)
    const servers: BenchProcess[] = []
    try {
      servers.push(...(await this.#startServers(world)))
      const setup = await arm.set(world, signal)
      try {
        this.#progress.measuring('start')
        const isPlain = arm.name === 'none'
        const { arm: running, tookMs } = await startAndWait(world, setup, isPlain, signal)
        this.#describe(arm.name, running, setup.config)
        if (running.agents.length > 0) this.#record(arm.name, round, { [START_METRIC.id]: tookMs })
        await this.#measureAll(arm, round, world, running)
        await stillCarries(world, isPlain, signal)
      } finally {
        await setup.stop()
      }
    } finally {
      await Promise.all(servers.map(server => server.stop('SIGKILL')))
      await world.remove()
    }
  }

  async #measureAll(arm: Arm, round: number, world: World, running: RunningArm): Promise<void> {
    const wanted = new Set(this.metrics.map(({ id }) => id))
    const at = new Situation(world, running, this.#options.timing, wanted, this.#signal)
    let isWarm = false
    for (const measurement of this.#measurements) {
      if (measurement.id !== 'rss-idle' && !isWarm) {
        isWarm = true
        await this.#warmUp(at)
      }
      this.#progress.measuring(measurement.id)
      try {
        this.#record(arm.name, round, await measurement.run(at))
      } catch (err) {
        this.#signal.throwIfAborted()
        const why = { why: errorText(err) }
        const ids = measurement.metrics(this.#options.timing).map(({ id }) => [id, why] as const)
        this.#record(arm.name, round, Object.fromEntries(ids))
        running.check() // an arm that has ended has no more to tell
      }
    }
  }

  async #warmUp(at: Situation): Promise<void> {
    this.#progress.measuring('warm-up')
    const seconds = at.timing.warmUpSeconds * FIRST_WARM_UP
    try {
      await at.client('round-trips', APP_PORT.echo, 16_384, seconds, 0)
      await at.client('connections', APP_PORT.echo, 8, seconds / 2)
    } catch {
      at.signal.throwIfAborted() // what is wrong will show in what is measured
    }
  }

  async #startServers(world: World): Promise<BenchProcess[]> {
    const app = new BenchProcess({
      name: 'bench/clients/server.ts',
      argv: world.podArgv('server', clientArgv('server', APP_PORT.echo, APP_PORT.who, APP_PORT.http)),
      env: clientEnv(),
    })
    const started = [app]
    try {
      await app.line(this.#signal)
      if (!this.#measurements.some(({ tools }) => tools.includes('iperf3'))) return started
      const argv = ['iperf3', '--server', '--port', String(APP_PORT.iperf), '--forceflush']
      const iperf = new BenchProcess({ name: 'iperf3 --server', argv: world.podArgv('server', argv) })
      started.push(iperf)
      while (!(await iperf.line(this.#signal)).includes('listening'));
      return started
    } catch (err) {
      await Promise.all(started.map(each => each.stop('SIGKILL')))
      throw err
    }
  }

  #describe(name: ArmName, { agents }: RunningArm, config: string): void {
    const info = this.#infos.get(name)!
    if (info.commands.length > 0) return
    const commands = agents.map(({ pid }) => withoutPlace(commandLine(pid)))
    this.#infos.set(name, { ...info, commands, config: withoutPlace(config) })
  }

  #record(arm: ArmName, round: number, values: Readonly<Record<string, Value>>): void {
    const at = new Date().toISOString()
    for (const metric of this.metrics) {
      const value = values[metric.id]
      if (value === undefined) continue
      if (typeof value === 'number') {
        this.samples.push({ arm, metric: metric.id, round, value, at })
        this.#progress.measured(metric, value)
      } else {
        if (!value.isKnown) this.failures++
        this.#gap({ arm, metric: metric.id, round, why: withoutPlace(value.why) })
      }
    }
  }

  /** A turn that broke off: everything that it should have given and has not is a gap. */
  #fill({ name: arm }: Arm, round: number, why: string): void {
    const has = (metric: string) =>
      [...this.samples, ...this.gaps].some(each => each.arm === arm && each.round === round && each.metric === metric)
    this.failures++
    for (const { id, missing } of this.metrics)
      if (missing === undefined && !has(id)) this.#gap({ arm, metric: id, round, why: withoutPlace(why) })
  }

  #gap(gap: Gap): void {
    this.gaps.push(gap)
    this.#progress.gap(gap)
  }
}

/** Throws `INPUT` naming those that do not exist. */
function wantedMetrics({ metrics, timing }: BenchOptions): Set<string> {
  const all = allMetrics(timing).map(({ id }) => id)
  const unknown = metrics?.filter(id => !all.includes(id)) ?? []
  if (unknown.length > 0)
    throw new CulvertError('INPUT', `there is no metric ${unknown.map(id => `'${id}'`).join(', ')}`, {
      hint: `there are ${all.join(', ')}`,
    })
  return new Set(metrics ?? all)
}
