/**
 * How the ca-server and its clients do in a cluster of any size: a simulated API server that is listed and watched like a
 * real one, the real ca-server on it, one real agent, and clients that only count. Then pods are replaced, and it is measured
 * how long it takes from a pod's being ready until every client has heard of it.
 */
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Authority } from '../ca-server/authority/authority.ts'
import { programArgv, programEnv } from '../lab/supervisor/context.ts'
import { TOKEN_ISSUER, TokenSigner } from '../lab/supervisor/tokens.ts'
import { runOk } from '../lab/run.ts'
import { CulvertError } from '../lib/errors.ts'
import { createLogger } from '../lib/log.ts'
import { clientEnv } from './measure/measurement.ts'
import { cpuMs, residentBytes } from './measure/processes.ts'
import { OWN_NODE, PODS_PER_SERVICE } from './micro/cluster.ts'
import type { Series } from './model.ts'
import { BenchProcess } from './process.ts'
import type { ScaleOptions } from './scale.ts'
import { CLIENTS, seriesOf, type Figures, type Timing, type Usage } from './scale-cluster-series.ts'
import { quantile } from './stats.ts'

const MIB = 1024 * 1024
/** What gRPC clients take by default. */
const RESPONSE_LIMIT = 4 * MIB

export interface ClusterScaleOptions {
  /** Numbers of pods. */
  readonly counts: readonly number[]
  readonly isQuick: boolean
  readonly signal: AbortSignal
}

const WHOLE: Timing = { restMs: 15_000, perSecond: 100, churnSeconds: 60 }
const QUICK: Timing = { restMs: 500, perSecond: 50, churnSeconds: 2 }

const COUNTS = { quick: [1000], whole: [1000, 10_000, 100_000] } as const

/** Tells `progress` what is next. `quick`: one small cluster for a moment, to see that it works, not for figures. */
export function runScaleCluster(
  progress: (what: string) => void,
  { quick: isQuick = false, signal = new AbortController().signal }: ScaleOptions = {},
): Promise<Series[]> {
  return scaleCluster(progress, { counts: COUNTS[isQuick ? 'quick' : 'whole'], isQuick, signal })
}

/** One cluster size after the other. Rejects with `TOOL` when a program fails, or a client has not heard of every pod. */
export async function scaleCluster(
  progress: (what: string) => void,
  { counts, isQuick, signal }: ClusterScaleOptions,
): Promise<Series[]> {
  const timing = isQuick ? QUICK : WHOLE
  signal.throwIfAborted()
  // As an image does when it is built: the first start of all would measure the compiler.
  for (const program of ['agent/main.ts', 'ca-server/main.ts'])
    await runOk([...programArgv(program), '--warm-up'], { env: programEnv(), signal })
  const found: Figures[] = []
  for (const pods of counts) {
    progress(
      `scale-cluster: ${pods.toLocaleString('en-US')} pods, ${timing.perSecond} of them replaced a second`,
    )
    found.push(await Run.figures(pods, timing, signal))
  }
  return seriesOf(found, timing)
}

/** Everything that runs for one cluster size. */
class Run {
  readonly #pods: number
  readonly #timing: Timing
  readonly #signal: AbortSignal
  readonly #directory: string
  readonly #started: BenchProcess[] = []

  private constructor(pods: number, timing: Timing, directory: string, signal: AbortSignal) {
    this.#pods = pods
    this.#timing = timing
    this.#directory = directory
    this.#signal = signal
  }

  static async figures(pods: number, timing: Timing, signal: AbortSignal): Promise<Figures> {
    const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-cluster-'))
    const run = new Run(pods, timing, directory, signal)
    try {
      return await run.#measure()
    } finally {
      for (const process of run.#started.reverse()) await process.stop()
      await rm(directory, { recursive: true, force: true })
    }
  }

  async #measure(): Promise<Figures> {
    const tokens = await this.#writeCredentials()
    const api = this.#start(
      'bench/simulated/api-server.ts',
      [this.#directory, String(this.#pods)],
      clientEnv(),
    )
    const apiPort = await api.line(this.#signal)

    const startMs = performance.now()
    const server = this.#start('ca-server/main.ts', [], this.#serverEnv(apiPort))
    const ports = await this.#ports()
    await this.#untilReady(server, ports.metricsPort)
    const serverSyncSeconds = (performance.now() - startMs) / 1000
    const url = `https://127.0.0.1:${ports.port}`

    const agentStartMs = performance.now()
    const agent = this.#start('agent/main.ts', [], this.#agentEnv(url))
    await untilSaid(agent, '"agent ready"', this.#signal)
    const agentReadySeconds = (performance.now() - agentStartMs) / 1000

    const resources = this.#pods + Math.ceil(this.#pods / PODS_PER_SERVICE)
    const clients = this.#start(
      'bench/simulated/clients.ts',
      [this.#directory, url, String(tokens), String(resources)],
      clientEnv(),
    )
    const { syncedMs } = JSON.parse(await clients.line(this.#signal)) as { syncedMs: number[] }

    await this.#pause(this.#timing.restMs)
    const usage = await this.#usageDuring([server, agent], async () => {
      api.tell(`churn ${this.#timing.perSecond} ${this.#timing.churnSeconds}`)
      await api.line(this.#signal)
    })
    clients.tell(`until ${this.#timing.perSecond * this.#timing.churnSeconds}`)
    const { largestBytes } = JSON.parse(await clients.line(this.#signal)) as { largestBytes: number }
    if (largestBytes >= RESPONSE_LIMIT)
      throw new CulvertError('TOOL', `a discovery response has ${largestBytes} bytes, more than clients take`)
    return {
      pods: this.#pods,
      serverSyncSeconds,
      agentReadySeconds,
      clientsSyncSeconds: Math.max(...syncedMs) / 1000,
      server: usage[0]!,
      agent: usage[1]!,
      largestResponseBytes: largestBytes,
      knownMs: await this.#latencies(),
    }
  }

  /** Keys and certificates of the API server, tokens of agents, the ca-server's own account. Gives the number of clients. */
  async #writeCredentials(): Promise<number> {
    const file = (name: string) => join(this.#directory, name)
    await mkdir(file('account'))
    const authority = await Authority.open({
      trustDomain: 'api.bench',
      source: { kind: 'own-root', directory: file('api-authority') },
      engine: 'node',
      log: createLogger({}, 'silent'),
    })
    const { key, chain } = await authority.issueServing(
      { dns: ['localhost'], ips: ['127.0.0.1'] },
      86_400_000,
    )
    await writeFile(file('key.pem'), key, { mode: 0o600 })
    await writeFile(file('cert.pem'), chain)
    await writeFile(file('account/ca.crt'), authority.roots.join(''))
    await writeFile(file('account/token'), 'bench')
    const signer = await TokenSigner.create()
    await writeFile(file('jwks.json'), signer.jwks)
    await writeFile(file('pods.json'), '{"pods": []}')
    const tokenOf = (node: string) =>
      signer.sign({
        node,
        nodeUid: `uid-${node}`,
        pod: `culvert-agent-${node}`,
        podUid: `uid-agent-${node}`,
        serviceAccountUid: 'uid-account',
      })
    await writeFile(file('token'), await tokenOf(OWN_NODE))
    for (let at = 0; at < CLIENTS; at++) await writeFile(file(`token-${at}`), await tokenOf(`node-${at}`))
    return CLIENTS
  }

  #start(program: string, args: readonly string[], env: NodeJS.ProcessEnv): BenchProcess {
    const started = new BenchProcess({ name: program, argv: [...programArgv(program), ...args], env })
    this.#started.push(started)
    return started
  }

  #serverEnv(apiPort: string): NodeJS.ProcessEnv {
    const file = (name: string) => join(this.#directory, name)
    return {
      ...programEnv(),
      KUBERNETES_SERVICE_HOST: '127.0.0.1',
      KUBERNETES_SERVICE_PORT: apiPort,
      SERVICE_ACCOUNT_DIR: file('account'),
      JWKS_FILE: file('jwks.json'),
      TOKEN_ISSUER,
      DATA_DIR: file('ca'),
      LISTEN_ADDRESS: '127.0.0.1',
      LISTEN_PORT: '0',
      METRICS_PORT: '0',
      PORT_FILE: file('ports.json'),
      ROOT_OUT: file('root.pem'),
      LOG_LEVEL: 'warn',
    }
  }

  #agentEnv(url: string): NodeJS.ProcessEnv {
    const file = (name: string) => join(this.#directory, name)
    return {
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
    }
  }

  async #ports(): Promise<{ port: number; metricsPort: number }> {
    for (;;) {
      const text = await readFile(join(this.#directory, 'ports.json'), 'utf8').catch(() => undefined)
      if (text !== undefined) return JSON.parse(text) as { port: number; metricsPort: number }
      this.#started.at(-1)!.check()
      await this.#pause(POLL_MS)
    }
  }

  async #untilReady(server: BenchProcess, port: number): Promise<void> {
    for (;;) {
      const response = await fetch(`http://127.0.0.1:${port}/healthz/ready`, { signal: this.#signal })
      await response.text()
      if (response.ok) return
      server.check()
      await this.#pause(POLL_MS)
    }
  }

  /** What each of the processes takes at rest, and while the work lasts. */
  async #usageDuring(processes: readonly BenchProcess[], work: () => Promise<void>): Promise<Usage[]> {
    const cpuNow = () => processes.map(({ pid }) => cpuMs([pid]))
    const bytesNow = () => processes.map(({ pid }) => residentBytes([pid]))
    const restMs = this.#timing.restMs
    let before = cpuNow()
    await this.#pause(restMs)
    const resting = cpuNow().map((ms, at) => (ms - before[at]!) / restMs)
    const restingBytes = bytesNow()
    const startMs = performance.now()
    before = cpuNow()
    await work()
    const tookMs = performance.now() - startMs
    return cpuNow().map((ms, at) => ({
      restingBytes: restingBytes[at]!,
      largestBytes: largestResidentBytes(processes[at]!.pid),
      restingCpu: resting[at]!,
      churnCpu: (ms - before[at]!) / tookMs,
      churnMs: ms - before[at]!,
    }))
  }

  /** Throws `TOOL` when a client has not heard of a pod. */
  async #latencies(): Promise<Figures['knownMs']> {
    const read = async (name: string) =>
      JSON.parse(await readFile(join(this.#directory, name), 'utf8')) as unknown
    const ready = (await read('ready.json')) as Record<string, string>
    const heard = (await read('heard.json')) as Record<string, string>[]
    const known = Object.entries(ready).map(([key, readyNs]) => {
      const times = heard.map(each => each[key])
      const missing = times.filter(time => time === undefined).length
      if (missing > 0) throw new CulvertError('TOOL', `${missing} clients have not heard of pod ${key}`)
      return Math.max(...times.map(time => Number(BigInt(time!) - BigInt(readyNs)))) / 1e6
    })
    return { p50: quantile(known, 0.5), p99: quantile(known, 0.99), max: Math.max(...known) }
  }

  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#signal })
  }
}

const POLL_MS = 20

async function untilSaid(process: BenchProcess, text: string, signal: AbortSignal): Promise<void> {
  while (!(await process.line(signal)).includes(text));
}

/** The largest resident memory that the process has had, from proc_pid_status(5). */
function largestResidentBytes(pid: number): number {
  const [, kilobytes = '0'] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? []
  return Number(kilobytes) * 1024
}
