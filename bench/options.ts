/** What can be said on the bench's command line, and what is made of it. Each reader throws what commander shows. */
import { InvalidArgumentError, Option, type Command } from 'commander'
import type { BenchOptions } from './run.ts'
import { ARM_NAMES, type ArmName } from './model.ts'
import type { Timing } from './measure/measurement.ts'

export interface OutputOptions {
  readonly json?: string
  readonly html?: string
}

/** As commander hands them over. */
export interface RunOptions extends OutputOptions {
  readonly rounds?: number
  readonly seconds?: number
  readonly quick: boolean
  readonly arms: readonly ArmName[]
  readonly metrics?: readonly string[]
  readonly ztunnel?: string
  readonly threads: number
  readonly logLevel: string
  readonly install: boolean
  readonly micro: boolean
  readonly scale: boolean
}

const DEFAULT_ROUNDS = 5
const DEFAULT_SECONDS = 2
const QUICK_SECONDS = 0.3

export const DEFAULT_TIMING: Timing = timingOf(DEFAULT_SECONDS, false)

export function addRunOptions(command: Command): Command {
  return command
    .addOption(new Option('--rounds <n>', `default: ${DEFAULT_ROUNDS}`).argParser(number(1, 1000)))
    .addOption(
      new Option('--arms <names>', `of ${ARM_NAMES.join(', ')}`)
        .default([...ARM_NAMES], 'all')
        .argParser(armNames),
    )
    .addOption(new Option('--metrics <ids>', 'only these; see the list below').argParser(list))
    .addOption(
      new Option('--seconds <n>', `length of each measurement; default: ${DEFAULT_SECONDS}`).argParser(
        seconds,
      ),
    )
    .option('--quick', 'one round of short measurements: to see that it works, not for figures', false)
    .option('--ztunnel <path>', 'the ztunnel to measure against; also: ZTUNNEL_BIN')
    .addOption(
      new Option('--threads <n>', 'data-plane threads of each Culvert agent')
        .default(1)
        .argParser(number(1, 64)),
    )
    .addOption(
      new Option('--log-level <level>', 'of ztunnel and Culvert; info: a line for each connection')
        .default('warn')
        .choices(['debug', 'info', 'warn', 'error']),
    )
    .option('--no-install', 'install nothing; what is missing is named')
    .option('--micro', 'also the parts by themselves (see: micro)', false)
    .option('--scale', 'also growth with pods and workloads (see: scale)', false)
}

/** Where results go besides the terminal. */
export function addOutputOptions(command: Command): Command {
  return command
    .option('--json <file>', 'write the whole run')
    .option('--html <file>', 'write a page with plots')
}

/** `command` is the command line, for the record. */
export function benchOptions(options: RunOptions, command: string): BenchOptions {
  const { arms, metrics, quick, ztunnel, threads, logLevel } = options
  return {
    rounds: options.rounds ?? (quick ? 1 : DEFAULT_ROUNDS),
    arms,
    threads,
    logLevel,
    mayInstall: options.install,
    command,
    timing: timingOf(options.seconds ?? (quick ? QUICK_SECONDS : DEFAULT_SECONDS), quick),
    ...(metrics && { metrics }),
    ...(ztunnel !== undefined && { ztunnel }),
  }
}

function timingOf(seconds: number, isQuick: boolean): Timing {
  return {
    seconds,
    warmUpSeconds: isQuick ? 0.05 : 0.5,
    idleSeconds: isQuick ? 0.5 : 5,
    settleSeconds: isQuick ? 0.2 : 5,
  }
}

function list(text: string): string[] {
  const items = text
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
  if (items.length === 0) throw new InvalidArgumentError('none is named')
  return items
}

function armNames(text: string): ArmName[] {
  const names = list(text)
  const unknown = names.find(name => !ARM_NAMES.includes(name as ArmName))
  if (unknown !== undefined)
    throw new InvalidArgumentError(`there is no arm '${unknown}'; there are ${ARM_NAMES.join(', ')}`)
  return [...new Set(names as ArmName[])]
}

function number(least: number, most: number): (text: string) => number {
  return text => {
    const value = /^\d{1,6}$/.test(text) ? Number(text) : NaN
    if (!(value >= least && value <= most))
      throw new InvalidArgumentError(`'${text}' is not a number from ${least} to ${most}`)
    return value
  }
}

function seconds(text: string): number {
  const value = Number(text)
  if (!/^[\d.]+$/.test(text) || !(value >= 0.1 && value <= 600))
    throw new InvalidArgumentError(`'${text}' is not between 0.1 and 600 seconds`)
  return value
}
