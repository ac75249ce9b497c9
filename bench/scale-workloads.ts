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
import { runOk } from '../lab/run.ts'
import { cpuMs, residentBytes } from './measure/processes.ts'
import { OWN_NODE } from './micro/cluster.ts'
import { learn } from './micro/learning.ts'
import type { Series } from './model.ts'
import { BenchProcess } from './process.ts'
import type { Asked } from './scale-asking.ts'
import { median } from './stats.ts'

const MIB = 1024 * 1024

export interface WorkloadScaleOptions {
  readonly counts: readonly number[]
  readonly isQuick: boolean
  readonly signal: AbortSignal
}

/** What a pod changes 100 times a second somewhere in the cluster, for so long. */
const CHURN = { perSecond: 100, seconds: 10 }
/** Long enough for an agent at rest to have given back what its start took. */
const REST_SECONDS = 8
const READY_TIMEOUT_MS = 120_000
const MODES = ['full', 'on-demand'] as const

/** One cluster size after the other. Rejects with `TOOL` when a program fails. */
export async function scaleWorkloads(
  progress: (what: string) => void,
  { counts, isQuick, signal }: WorkloadScaleOptions,
): Promise<Series[]> {
  const agents: (AgentFigures & { x: number; arm: (typeof MODES)[number] })[] = []
  const decisions: Point[] = []
  const kept: Point[] = []
  for (const x of counts) {
    const name = x.toLocaleString('en-US')
    const server = await ScaleServer.start(x, signal)
    try {
      for (const arm of MODES) {
        progress(`scale: an agent in a cluster of ${name} workloads, discovery ${arm}`)
        agents.push({ x, arm, ...(await agentFigures(server, arm, isQuick, signal)) })
      }
      progress(`scale: first decisions on demand, of ${name} workloads`)
      const { podMicros, serviceMicros, keptBytes } = await server.asked(signal)
      decisions.push(
        { arm: 'pod, on demand, the first time', x, y: median(podMicros) },
        { arm: 'service, on demand, the first time', x, y: median(serviceMicros) },
      )
      kept.push({ arm: 'on-demand', x, y: keptBytes / MIB })
    } finally {
      await server.stop()
    }
    progress(`scale: decisions among ${name} workloads`)
    const found = await learn(x, { times: 1, isQuick, signal })
    const micros = (rates: readonly number[]) => 1e6 / median(rates)
    decisions.push(
      { arm: 'pod', x, y: micros(found.flatMap(each => each.podRates)) },
      { arm: 'service', x, y: micros(found.flatMap(each => each.serviceRates)) },
    )
    kept.push({ arm: 'full', x, y: median(found.map(({ keptBytes }) => keptBytes)) / MIB })
  }
  const restSeconds = isQuick ? 1 : REST_SECONDS
  const xLabel = 'workloads of the cluster'
  return [
    {
      id: 'workloads-rss',
      title: 'memory of an agent by workloads of its cluster',
      xLabel,
      yLabel: 'resident memory',
      unit: 'MiB',
      points: agents.flatMap(({ x, arm, restingBytes, largestBytes }) => [
        { arm: `${arm}, at rest`, x, y: restingBytes / MIB },
        { arm: `${arm}, at its largest`, x, y: largestBytes / MIB },
      ]),
      about: `A real agent without pods of its own, ${restSeconds} s after it was ready, and the most it has had until then. There is a service for every ten workloads. On demand such an agent holds none of them.`,
    },
    {
      id: 'workloads-kept',
      title: 'what knowing of workloads takes',
      xLabel,
      yLabel: 'bytes in use',
      unit: 'MiB',
      points: kept,
      about:
        'By the same mesh in a process of its own. On demand after 1,000 pods and 100 services from all over the cluster were asked about, which it then holds with all of their endpoints.',
    },
    {
      id: 'workloads-ready',
      title: 'start of an agent by workloads of its cluster',
      xLabel,
      yLabel: 'from its start until it is ready',
      unit: 's',
      points: agents.map(({ x, arm, readySeconds }) => ({ arm, x, y: readySeconds })),
      about: 'Ready is when everything that discovery has to tell unasked is known.',
    },
    {
      id: 'workloads-start-cpu',
      title: 'processor time of that start',
      xLabel,
      yLabel: 'user and system',
      unit: 's',
      points: agents.map(({ x, arm, startCpuMs }) => ({ arm, x, y: startCpuMs / 1000 })),
      about: 'Of all threads of the agent.',
    },
    {
      id: 'workloads-churn-cpu',
      title: 'processor time of an agent while workloads change',
      xLabel,
      yLabel: 'user and system, each second',
      unit: 'ms',
      points: agents.map(({ x, arm, churnCpuMs }) => ({ arm, x, y: churnCpuMs })),
      about: `${CHURN.perSecond} pods a second, from all over the cluster, become ready or stop being it. None of them concerns a pod of the agent.`,
    },
    {
      id: 'workloads-decision',
      title: 'time of a decision by workloads of the cluster',
      xLabel,
      yLabel: 'each',
      unit: 'µs',
      points: decisions,
      about:
        'Where does this connection go: asked for addresses of pods and of services from all over the cluster. On demand the first time is a round trip to the ca-server, here over loopback; later ones are like those of an agent that holds everything.',
    },
  ]
}

type Point = Series['points'][number]

interface AgentFigures {
  readonly readySeconds: number
  readonly startCpuMs: number
  readonly restingBytes: number
  readonly largestBytes: number
  /** Each second of churn. */
  readonly churnCpuMs: number
}

/** A ca-server's discovery over a cluster, and the directory that it shares with those who use it. */
class ScaleServer {
  readonly url: string
  readonly directory: string
  readonly #process: BenchProcess
  readonly #pods: number

  private constructor(url: string, directory: string, process: BenchProcess, pods: number) {
    this.url = url
    this.directory = directory
    this.#process = process
    this.#pods = pods
  }

  static async start(pods: number, signal: AbortSignal): Promise<ScaleServer> {
    const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-scale-'))
    await mkdir(join(directory, 'ca'), { mode: 0o700 })
    await writeFile(join(directory, 'pods.json'), '{"pods": []}')
    const process = new BenchProcess({
      name: 'bench/scale-server.ts',
      argv: [...programArgv('bench/scale-server.ts'), directory, String(pods)],
      env: programEnv(),
    })
    try {
      const port = await process.line(signal)
      return new ScaleServer(`https://127.0.0.1:${port}`, directory, process, pods)
    } catch (err) {
      await process.stop()
      await rm(directory, { recursive: true, force: true })
      throw err
    }
  }

  /** From now on so many pods change a second; 0 ends it. */
  churn(perSecond: number): void {
    this.#process.tell(String(perSecond))
  }

  async asked(signal: AbortSignal): Promise<Asked> {
    const [node = '', ...argv] = programArgv('bench/scale-asking.ts')
    const args = ['--expose-gc', ...argv, this.url, this.directory, String(this.#pods)]
    const { stdout } = await runOk([node, ...args], { env: programEnv(), signal })
    return JSON.parse(stdout.toString()) as Asked
  }

  async stop(): Promise<void> {
    await this.#process.stop()
    await rm(this.directory, { recursive: true, force: true })
  }
}

async function agentFigures(
  server: ScaleServer,
  discovery: (typeof MODES)[number],
  isQuick: boolean,
  signal: AbortSignal,
): Promise<AgentFigures> {
  const file = (name: string) => join(server.directory, name)
  const startMs = performance.now()
  const agent = new BenchProcess({
    name: 'agent/main.ts',
    argv: programArgv('agent/main.ts'),
    env: {
      ...programEnv(),
      NODE_NAME: OWN_NODE,
      DISCOVERY: discovery,
      XDS_ADDRESS: server.url,
      XDS_ROOT_CA: file('root.pem'),
      AUTH_TOKEN_FILE: file('token'),
      POD_SOURCE: `static:${file('pods.json')}`,
      RUN_DIR: file('agent'),
      ADMIN_PORT: '0',
      METRICS_PORT: '0',
      READY_PORT: '0',
      LOG_LEVEL: 'info',
    },
  })
  try {
    await untilReady(agent, signal)
    const readySeconds = (performance.now() - startMs) / 1000
    const startCpuMs = cpuMs([agent.pid])
    await sleep((isQuick ? 1 : REST_SECONDS) * 1000, undefined, { signal })
    agent.check()
    const restingBytes = residentBytes([agent.pid])
    const largestBytes = largestResidentBytes(agent.pid)
    const churnSeconds = isQuick ? 1 : CHURN.seconds
    server.churn(CHURN.perSecond)
    const beforeMs = cpuMs([agent.pid])
    await sleep(churnSeconds * 1000, undefined, { signal })
    const churnCpuMs = (cpuMs([agent.pid]) - beforeMs) / churnSeconds
    agent.check()
    return { readySeconds, startCpuMs, restingBytes, largestBytes, churnCpuMs }
  } finally {
    server.churn(0)
    await agent.stop()
    await rm(file('agent'), { recursive: true, force: true })
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
