/** How an agent's mesh grows with the cluster: runs `tell.ts` and `learn.ts` for clusters of given sizes. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { runOk } from '../../lab/run.ts'
import type { MicroResult } from '../model.ts'
import { median } from '../stats.ts'
import type { Learnt } from './learn.ts'

export interface LearningOptions {
  /** How often each size is learnt, each time by a fresh process. */
  readonly times: number
  readonly isQuick: boolean
  readonly signal?: AbortSignal
}

/** What fresh processes found that learnt of a cluster with so many pods. Rejects with `TOOL` when one fails. */
export async function learn(pods: number, { times, isQuick, signal }: LearningOptions): Promise<Learnt[]> {
  const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-mesh-'))
  const options = signal ? { signal } : {}
  try {
    const file = join(directory, 'responses')
    await runOk([execPath, QUIET, programOf('tell.ts'), String(pods), file], options)
    const found: Learnt[] = []
    for (let time = 0; time < times; time++) {
      const argv = [execPath, QUIET, '--expose-gc', programOf('learn.ts'), file, String(pods)]
      const { stdout } = await runOk([...argv, ...(isQuick ? ['--quick'] : [])], options)
      found.push(JSON.parse(stdout.toString()) as Learnt)
    }
    return found
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const QUIET = '--disable-warning=ExperimentalWarning'

function programOf(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url))
}

/** The same as results: how fast it was learnt, and how fast it is asked. */
export function learningResults(pods: number, found: readonly Learnt[]): MicroResult[] {
  const name = pods.toLocaleString('en-US')
  const ingest = found.map(({ seconds }) => pods / seconds)
  return [
    {
      id: `ingest-${pods}`,
      title: `xDS ingest, ${name} workloads`,
      unit: 'workloads',
      opsPerSecond: median(ingest),
      samples: ingest,
      memory: {
        peakBytes: median(found.map(({ peakBytes }) => peakBytes)),
        keptBytes: median(found.map(({ keptBytes }) => keptBytes)),
      },
      about: `Encoded responses of a ca-server become a mesh that answers, services included; each sample is a fresh process. ${figureOf(found, pods)} bytes are kept for each workload.`,
    },
    result(
      `resolve-pod-${pods}`,
      `resolve a pod, ${name} workloads known`,
      found.flatMap(each => each.podRates),
    ),
    result(
      `resolve-service-${pods}`,
      `resolve a service, ${name} workloads known`,
      found.flatMap(each => each.serviceRates),
    ),
  ]
}

function result(id: string, title: string, samples: number[]): MicroResult {
  const about = 'The router is asked where a connection goes, addresses from all over the cluster in turn.'
  return { id, title, opsPerSecond: median(samples), samples, about }
}

function figureOf(found: readonly Learnt[], pods: number): string {
  return Math.round(median(found.map(({ keptBytes }) => keptBytes)) / pods).toLocaleString('en-US')
}
