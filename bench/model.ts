/**
 * What a run of the bench is, as it stands in its JSON file: everything that a table, a page or a comparison
 * needs, and nothing that has to be remembered beside it. Written by `main.ts`, read by `report.ts`, `html.ts` and
 * `compare.ts`. `schema` changes when an older reader would misread a newer file.
 */

export const SCHEMA = 1

/** In the order in which reports show them. */
export const ARM_NAMES = ['none', 'nginx', 'haproxy', 'ztunnel', 'culvert'] as const
export type ArmName = (typeof ARM_NAMES)[number]

export interface BenchRun {
  readonly schema: typeof SCHEMA
  /** RFC 3339. */
  readonly startedAt: string
  readonly finishedAt: string
  /** What was measured: a git commit, or `unknown`. */
  readonly commit: string
  /** The tree had changes beyond the commit. */
  readonly isDirty: boolean
  /** The command line. */
  readonly command: string
  readonly machine: Machine
  readonly arms: readonly ArmInfo[]
  readonly metrics: readonly MetricInfo[]
  readonly rounds: number
  /** At most one for each arm, metric and round. */
  readonly samples: readonly Sample[]
  /** Samples that could not be had, each with the reason: nothing is left out in silence. */
  readonly gaps?: readonly Gap[]
  readonly micro?: readonly MicroResult[]
  readonly series?: readonly Series[]
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly kernel: string
  readonly memoryBytes: number
  readonly node: string
  readonly os: string
  /** Load average of the last minute when the run began. */
  readonly loadAtStart: number
}

export interface ArmInfo {
  readonly name: ArmName
  readonly version?: string
  /** Why it did not run. */
  readonly missing?: string
  /** The command lines of its processes. */
  readonly commands: readonly string[]
  /** Its configuration, as text. */
  readonly config: string
}

export interface MetricInfo {
  readonly id: string
  readonly title: string
  readonly unit: string
  readonly better: 'higher' | 'lower'
  /** What was run. */
  readonly command: string
  /** One sentence: what the number means. */
  readonly about: string
  /** Why nobody measured it: a program that is not installed. */
  readonly missing?: string
}

export interface Sample {
  readonly arm: ArmName
  /** The `id` of a metric. */
  readonly metric: string
  /** From 1. Arms of one round ran one after the other, minutes apart at most. */
  readonly round: number
  readonly value: number
  /** RFC 3339. */
  readonly at: string
}

export interface Gap {
  readonly arm: ArmName
  /** The `id` of a metric. */
  readonly metric: string
  readonly round: number
  readonly why: string
}

export interface MicroResult {
  readonly id: string
  readonly title: string
  /** The median of the samples. */
  readonly opsPerSecond: number
  readonly samples: readonly number[]
  /** What one operation is, when that is not plain: `certificates`, `workloads`. */
  readonly unit?: string
  /** For what fills a store: the process's growth while it was filled, and what of it stayed. Medians of the samples. */
  readonly memory?: { readonly peakBytes: number; readonly keptBytes: number }
  readonly about: string
}

export interface Series {
  readonly id: string
  readonly title: string
  readonly xLabel: string
  readonly yLabel: string
  /** Of y. */
  readonly unit: string
  readonly points: readonly { readonly arm?: string; readonly x: number; readonly y: number }[]
  readonly about: string
}
