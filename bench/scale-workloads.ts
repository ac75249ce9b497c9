/**
 * How an agent grows with the cluster that it knows of: a real agent without pods of its own, fed over gRPC by the
 * ca-server's discovery. Its decisions are timed in a process of their own, by the same mesh and router.
 */
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { programArgv, programEnv } from '../lab/supervisor/context.ts'
import { CulvertError } from '../lib/errors.ts'
import { residentBytes } from './measure/processes.ts'
import { OWN_NODE } from './micro/cluster.ts'
import { learn } from './micro/learning.ts'
import type { Series } from './model.ts'
import { BenchProcess } from './process.ts'
import { median } from './stats.ts'

const MIB = 1024 * 1024

export interface WorkloadScaleOptions {
  readonly counts: readonly number[]
  readonly isQuick: boolean
  readonly signal: AbortSignal
}

/** One cluster size after the other. Rejects with `TOOL` when a program fails. */
export async function scaleWorkloads(
  progress: (what: string) => void,
  { counts, isQuick, signal }: WorkloadScaleOptions,
): Promise<Series[]> {
  const agents: (AgentFigures & { x: number })[] = []
  const decisions: { x: number; y: number; arm: string }[] = []
  for (const x of counts) {
    const name = x.toLocaleString('en-US')
    progress(`scale: an agent that knows of ${name} workloads`)
    agents.push({ x, ...(await agentFigures(x, isQuick ? 1 : REST_SECONDS, signal)) })
    progress(`scale: decisions among ${name} workloads`)
    const found = await learn(x, { times: 1, isQuick, signal })
    const micros = (rates: readonly number[]) => 1e6 / median(rates)
    decisions.push(
      { arm: 'pod', x, y: micros(found.flatMap(each => each.podRates)) },
      { arm: 'service', x, y: micros(found.flatMap(each => each.serviceRates)) },
    )
  }
  const xLabel = 'workloads known'
  return [
    {
      id: 'workloads-rss',
      title: 'memory of an agent by workloads known',
      xLabel,
      yLabel: 'resident memory',
      unit: 'MiB',
      points: agents.flatMap(({ x, restingBytes, largestBytes }) => [
        { arm: 'at rest', x, y: restingBytes / MIB },
        { arm: 'at its largest', x, y: largestBytes / MIB },
      ]),
      about: `A real agent without pods of its own, ${isQuick ? 1 : REST_SECONDS} s after it was ready, and the most it has had until then. Services are known, too, one for every ten workloads.`,
    },
    {
      id: 'workloads-ready',
      title: 'start of an agent by workloads known',
      xLabel,
      yLabel: 'from its start until it is ready',
      unit: 's',
      points: agents.map(({ x, readySeconds }) => ({ x, y: readySeconds })),
      about: 'Ready is when everything that discovery has to tell is known.',
    },
    {
      id: 'workloads-decision',
      title: 'time of a decision by workloads known',
      xLabel,
      yLabel: 'each',
      unit: 'µs',
      points: decisions,
      about:
        'Where does this connection go: asked for addresses of pods and of services from all over the cluster.',
    },
  ]
}

/** Long enough for an agent at rest to have given back what its start took. */
const REST_SECONDS = 8

const READY_TIMEOUT_MS = 120_000

interface AgentFigures {
  readonly readySeconds: number
  readonly restingBytes: number
  readonly largestBytes: number
}

async function agentFigures(
  workloads: number,
  restSeconds: number,
  signal: AbortSignal,
): Promise<AgentFigures> {
  const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-scale-'))
  const file = (name: string) => join(directory, name)
  const started: BenchProcess[] = []
  const start = (name: string, argv: readonly string[], env: NodeJS.ProcessEnv) => {
    const process = new BenchProcess({ name, argv, env })
    started.push(process)
    return process
  }
  try {
    await mkdir(file('ca'), { mode: 0o700 })
    await writeFile(file('pods.json'), '{"pods": []}')
    const server = start(
      'bench/scale-server.ts',
      [...programArgv('bench/scale-server.ts'), directory, String(workloads)],
      programEnv(),
    )
    const url = `https://127.0.0.1:${await server.line(signal)}`
    const startMs = performance.now()
    const agent = start('agent/main.ts', programArgv('agent/main.ts'), {
      ...programEnv(),
      NODE_NAME: OWN_NODE,
      XDS_ADDRESS: url,
      XDS_ROOT_CA: file('root.pem'),
      AUTH_TOKEN_FILE: file('token'),
      POD_SOURCE: `static:${file('pods.json')}`,
      RUN_DIR: file('agent'),
      ADMIN_PORT: '0',
      METRICS_PORT: '0',
      READY_PORT: '0',
      LOG_LEVEL: 'info',
    })
    await untilReady(agent, signal)
    const readySeconds = (performance.now() - startMs) / 1000
    await sleep(restSeconds * 1000, undefined, { signal })
    agent.check()
    const restingBytes = residentBytes([agent.pid])
    return { readySeconds, restingBytes, largestBytes: largestResidentBytes(agent.pid) }
  } finally {
    for (const process of started.reverse()) await process.stop()
    await rm(directory, { recursive: true, force: true })
  }
}

/** Rejects with `TOOL`, and what the agent logged last, when it ends before or is not ready in time. */
async function untilReady(agent: BenchProcess, signal: AbortSignal): Promise<void> {
  const inTime = AbortSignal.any([signal, AbortSignal.timeout(READY_TIMEOUT_MS)])
  let last = ''
  try {
    for (;;) {
      const line = await agent.line(inTime)
      if (line.includes('"agent ready"')) return
      last = line
    }
  } catch (err) {
    signal.throwIfAborted()
    throw new CulvertError('TOOL', `the agent did not get ready; it logged last: ${last}`, { cause: err })
  }
}

/** The largest resident memory that the process has had, from proc_pid_status(5). */
function largestResidentBytes(pid: number): number {
  const [, kilobytes = '0'] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? []
  return Number(kilobytes) * 1024
}
