/** One thing that is measured of an arm while it runs: a load, and the metrics that come of it. */
import { fileURLToPath } from 'node:url'
import { COMPILE_CACHE_DIR } from '../../lib/compile-cache.ts'
import { CulvertError } from '../../lib/errors.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import type { RunningArm } from '../arms/arm.ts'
import type { MetricInfo } from '../model.ts'
import type { World } from '../world.ts'
import { cpuMs, processTree } from './processes.ts'

export interface Timing {
  /** Of each measurement. */
  readonly seconds: number
  /** Thrown away before. */
  readonly warmUpSeconds: number
  /** Quiet time before memory is read. */
  readonly idleSeconds: number
  readonly settleSeconds: number
}

export interface Measurement {
  readonly id: string
  /** What comes of it, in the order of reports. */
  metrics(timing: Timing): readonly MetricInfo[]
  /** Programs of others that it runs. */
  readonly tools: readonly string[]
  /** Wants agents that have carried next to nothing: no warm-up before it. @default false */
  readonly isAtRest?: boolean
  /**
   * Metric and value; one that an arm does not have (processor time where there is no agent) is left out. Throws when
   * the load did not go through as a whole.
   */
  run(at: Situation): Promise<Readonly<Record<string, Value>>>
}

/** Why there is no value. */
export interface WhyNot {
  readonly why: string
  /** It is the arm's nature on this machine, and nothing that went wrong. */
  readonly isKnown?: boolean
}

export type Value = number | WhyNot

export class Situation {
  readonly world: World
  readonly arm: RunningArm
  readonly timing: Timing
  readonly signal: AbortSignal
  readonly #wanted: ReadonlySet<string>

  constructor(
    world: World,
    arm: RunningArm,
    timing: Timing,
    wanted: ReadonlySet<string>,
    signal: AbortSignal,
  ) {
    this.world = world
    this.arm = arm
    this.timing = timing
    this.signal = signal
    this.#wanted = wanted
  }

  /** Reports whether a metric was asked for. */
  wants(metric: string): boolean {
    return this.#wanted.has(metric)
  }

  get hasAgents(): boolean {
    return this.arm.agents.length > 0
  }

  /** The processes of each agent. */
  agentTrees(): number[][] {
    return this.arm.agents.map(({ pid }) => processTree(pid))
  }

  /** Processor time that both agents have used up to now, ms. */
  agentCpuMs(): number {
    return cpuMs(this.agentTrees().flat())
  }

  /** Runs one of the bench's own clients in the client's pod; gives what it has printed. Throws `TOOL`. */
  async client<T>(program: string, port: number, ...args: (string | number)[]): Promise<T> {
    const argv = clientArgv(program, this.world.server.ip, port, ...args)
    return JSON.parse(await this.output(argv)) as T
  }

  /** Runs a program in the client's pod; gives its standard output. Throws `TOOL` when it fails. */
  async output(argv: readonly string[]): Promise<string> {
    this.arm.check()
    const ran = await this.world.run('client', argv, { signal: this.signal, env: clientEnv() })
    this.signal.throwIfAborted()
    this.arm.check()
    if (ran.code === 0) return ran.stdout.toString()
    const said = (ran.stderr.trim() || ran.stdout.toString().trim()).slice(-500)
    throw new CulvertError('TOOL', `${nameOf(argv)} failed: ${said || `status ${ran.code}`}`)
  }
}

/** The command line of one of the bench's own programs. */
export function clientArgv(program: string, ...args: (string | number)[]): string[] {
  const file = fileURLToPath(new URL(`../clients/${program}.ts`, import.meta.url))
  return [process.execPath, '--disable-warning=ExperimentalWarning', file, ...args.map(String)]
}

/** For the bench's own programs: they start from the cache of compiled modules. */
export function clientEnv(): NodeJS.ProcessEnv {
  return { ...toolEnv(), NODE_COMPILE_CACHE: COMPILE_CACHE_DIR }
}

/** How a command is shown: without where this machine has its programs. */
export function shown(argv: readonly string[]): string {
  const [command, , file, ...args] = argv
  return command === process.execPath
    ? `node bench/clients/${file?.split('/').at(-1)} ${args.join(' ')}`
    : argv.join(' ')
}

function nameOf(argv: readonly string[]): string {
  return shown(argv).split(' ').slice(0, 2).join(' ')
}
