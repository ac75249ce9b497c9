/**
 * A run of the bench: rounds, in each of which every arm has its turn, first one arm first and then another. Nothing is
 * repeated because of its result and nothing is left out in silence: what could not be measured is a gap with a reason.
 */
import { CulvertError } from '../lib/errors.ts'
import { armsNamed } from './arms/all.ts'
import type { Arm, ArmOptions, Found, RunningArm } from './arms/arm.ts'
import { describeCommit, describeMachine, withoutPlace } from './machine.ts'
import { allMetrics, MEASUREMENTS } from './measure/all.ts'
import type { Measurement, Timing } from './measure/measurement.ts'
import { commandLine } from './measure/processes.ts'
import { SCHEMA, type ArmInfo, type ArmName, type BenchRun, type MetricInfo } from './model.ts'
import { Recorder, type Progress } from './recorder.ts'
import { ensureBenchTools } from './tools.ts'
import { runTurn, type TurnOptions } from './turn.ts'

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

export interface BenchResult {
  readonly run: BenchRun
  /** How many measurements, or whole turns, went wrong. */
  readonly failures: number
}

/**
 * Measures. Throws `DENIED` when namespaces cannot be made, `INPUT` for metrics that do not exist, `TOOL` when no arm
 * can run; the signal's reason.
 */
export async function runBench(
  options: BenchOptions,
  progress: Progress,
  signal: AbortSignal,
): Promise<BenchResult> {
  const { timing, rounds } = options
  const machine = describeMachine()
  const startedAt = new Date().toISOString()
  const commit = await describeCommit()
  const wanted = wantedMetrics(options)
  const measurements = MEASUREMENTS.filter(each => each.metrics(timing).some(({ id }) => wanted.has(id)))
  const arms = armsNamed(options.arms, options)
  const tools = new Set([...arms, ...measurements].flatMap(each => each.tools))
  const missing = ensureBenchTools([...tools], options.mayInstall, text => progress.note(text))
  const lacks = (one: { readonly tools: readonly string[] }) => one.tools.find(tool => missing.has(tool))

  const metrics = allMetrics(timing)
    .filter(({ id }) => wanted.has(id))
    .map(metric => withMissing(metric, missing.get(lacks(sourceOf(metric, timing)) ?? '')))
  for (const { id, missing } of metrics)
    if (missing !== undefined) progress.note(`${id} is not measured: ${missing}`)

  const infos = new Map<ArmName, ArmInfo>()
  for (const arm of arms) {
    const found: Found = missing.has(lacks(arm) ?? '')
      ? { missing: missing.get(lacks(arm)!)! }
      : await arm.find()
    infos.set(arm.name, { name: arm.name, ...found, commands: [], config: '' })
    if ('missing' in found) progress.note(`${arm.name} does not run: ${found.missing}`)
  }
  const running = arms.filter(({ name }) => infos.get(name)!.missing === undefined)
  if (running.length === 0) throw new CulvertError('TOOL', 'no arm of the bench can run here')

  const recorder = new Recorder(metrics, progress)
  await turns(running, rounds, {
    worldName: `bench_${process.pid}`,
    measurements: measurements.filter(each => lacks(each) === undefined),
    timing,
    recorder,
    progress,
    signal,
    onStarted: (name, { agents }, config) => {
      const commands = agents.map(({ pid }) => withoutPlace(commandLine(pid)))
      infos.set(name, { ...infos.get(name)!, commands, config: withoutPlace(config) })
    },
  })
  return {
    failures: recorder.failures,
    run: {
      schema: SCHEMA,
      startedAt,
      finishedAt: new Date().toISOString(),
      ...commit,
      command: options.command,
      machine,
      arms: [...infos.values()],
      metrics,
      rounds,
      samples: recorder.samples,
      gaps: recorder.gaps,
    },
  }
}

type TurnsOptions = Omit<TurnOptions, 'onStarted'> & {
  readonly onStarted: (name: ArmName, arm: RunningArm, config: string) => void
}

/** Every arm once in each round; who is first is another one in each. */
async function turns(arms: readonly Arm[], rounds: number, options: TurnsOptions): Promise<void> {
  const { recorder, progress, signal } = options
  for (let round = 1; round <= rounds; round++) {
    for (let at = 0; at < arms.length; at++) {
      const arm = arms[(at + round - 1) % arms.length]!
      progress.turn(round, arm.name)
      try {
        await runTurn(arm, round, {
          ...options,
          onStarted: (running, config) => options.onStarted(arm.name, running, config),
        })
      } catch (err) {
        signal.throwIfAborted()
        if (err instanceof CulvertError && err.code === 'DENIED') throw err
        recorder.failed({ arm: arm.name, round }, recorder.metrics, err)
      }
      progress.turnEnded()
    }
  }
}

/** The measurement that a metric comes of; that of the start needs no tools. */
function sourceOf({ id }: MetricInfo, timing: Timing): Pick<Measurement, 'tools'> {
  return MEASUREMENTS.find(each => each.metrics(timing).some(metric => metric.id === id)) ?? { tools: [] }
}

function withMissing(metric: MetricInfo, missing: string | undefined): MetricInfo {
  return missing === undefined ? metric : { ...metric, missing }
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
