/** What the parts of the supervisor share. */
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { COMPILE_CACHE_DIR } from '../../lib/compile-cache.ts'
import { toolPath } from '../../lib/tool-path.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { LabPaths } from '../names.ts'
import type { WorldFiles } from './world-files.ts'

export interface LabSettings {
  readonly name: string
  readonly trustDomain: string
  /** Lifetime of certificates as the agents ask for it, like `20s`; undefined leaves it to them. */
  readonly certTtl: string | undefined
  readonly logLevel: string
  /** What agents are given to end in, seconds. */
  readonly graceSeconds: number
  /** Name of the process that stands in for the kubelets; without it whatever calls from a node is taken for one. */
  readonly kubelet?: string | undefined
  /** More settings for the agents, or others: name and value in their environment. */
  readonly agentEnv?: Readonly<Record<string, string>>
}

export interface LabContext {
  readonly settings: LabSettings
  readonly paths: LabPaths
  readonly cluster: Cluster
  readonly files: WorldFiles
  /** Tells the operator of something that did not go as it should, but does not stop the lab. */
  readonly warn: (message: string) => void
  /** Some process began or ended: the state file is to be written. */
  readonly processesChanged: () => void
}

/** The command line of one of Culvert's own programs, given by its place in the tree. */
export function programArgv(path: string): string[] {
  const file = fileURLToPath(new URL(`../../${path}`, import.meta.url))
  return [execPath, '--disable-warning=ExperimentalWarning', file]
}

/** What every process of the lab gets; nothing of the environment of whoever started the lab. */
export function baseEnv(): Record<string, string> {
  return { PATH: toolPath(), HOME: '/', LANG: process.env.LANG ?? 'C.UTF-8' }
}

/** For Culvert's own programs: they may start from the cache of compiled modules. */
export function programEnv(): Record<string, string> {
  return { ...baseEnv(), NODE_COMPILE_CACHE: COMPILE_CACHE_DIR }
}

/** Parts come back at once the first times, then at most four times a second, for ever. */
export function partRestartDelayMs(restart: number): number {
  return restart <= 3 ? 0 : Math.min(250, 50 * (restart - 3))
}
