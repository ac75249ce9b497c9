/**
 * The agent of one node: kept running in the node's namespace, and replaced the way a DaemonSet with a surge
 * does it: the new one serves beside the old one before the old one is told to go.
 */
import { renameSync, rmSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Workload } from '../../agent/mesh/records.ts'
import type { PodReport } from '../../agent/pods/pods.ts'
import { CulvertError } from '../../lib/errors.ts'
import { lastLines } from '../files.ts'
import { requestUnix } from '../http.ts'
import { logPath, nodePaths, type NodePaths } from '../names.ts'
import { inNetnsArgv } from '../net/namespaces.ts'
import { CONTROL_PLANE_IPS } from '../net/plan.ts'
import type { NodePlan } from '../net/topology.ts'
import { partRestartDelayMs, programArgv, programEnv, type LabContext } from './context.ts'
import { KeptProcess } from './kept-process.ts'

/** What an agent says of a pod; the rest of its report is for people. */
export type MeshState = Pick<PodReport, 'uid' | 'namespace' | 'name' | 'state' | 'detail'>

/** What is looked at of an agent's dump. */
interface ConfigDump {
  readonly mesh: {
    /** Of an agent that asks for what its pods talk to. */
    readonly demand?: unknown
    readonly workloads: readonly Pick<Workload, 'namespace' | 'name' | 'tunnelled' | 'healthy'>[]
  }
}

const POLL_MS = 20
/** What a new agent may take until it has all pods. */
const SERVE_TIMEOUT_MS = 60_000
const SETTLED: ReadonlySet<string> = new Set(['enrolled', 'not-enrolled'])

interface Instance {
  readonly process: KeptProcess
  readonly adminSocket: string
}

export class NodeAgent {
  readonly node: NodePlan
  readonly #context: LabContext
  readonly #files: NodePaths
  readonly #draining = new Set<Instance>()
  #current: Instance | undefined
  #instances = 0

  constructor(node: NodePlan, context: LabContext) {
    this.node = node
    this.#context = context
    this.#files = nodePaths(context.paths, node.name)
  }

  /** Every process of the node's agent: the one that serves, and those that are on their way out. */
  processes(): KeptProcess[] {
    return [this.#current, ...this.#draining].flatMap(instance => instance?.process ?? [])
  }

  get current(): KeptProcess | undefined {
    return this.#current?.process
  }

  start(): void {
    if (!this.#current) {
      this.#current = this.#create()
      this.#pointAt(this.#current)
    }
    this.#current.process.start()
  }

  /** Ends all processes and starts none again until `start()`. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.processes().map(process => process.stop('SIGTERM', graceMs)))
  }

  /** Puts a new agent in the old one's place. Resolves when the old one is gone. Throws `LAB` when the new one fails. */
  async replace(): Promise<void> {
    const old = this.#current
    const fresh = this.#create()
    this.#draining.add(fresh) // until it serves it is only one of the processes
    fresh.process.start()
    try {
      await this.#serves(fresh)
    } catch (err) {
      await fresh.process.stop('SIGKILL', 0)
      this.#draining.delete(fresh)
      throw err
    }
    this.#draining.delete(fresh)
    this.#current = fresh
    this.#pointAt(fresh)
    if (!old) return
    this.#draining.add(old)
    // The agent ends by itself when its grace is over; this is for one that does not.
    await old.process.stop('SIGTERM', this.#context.settings.graceSeconds * 1000 + 2000)
    this.#draining.delete(old)
    rmSync(old.adminSocket, { force: true })
    this.#context.processesChanged()
  }

  /** What the agent says of its pods; undefined when it does not answer. */
  async pods(): Promise<MeshState[] | undefined> {
    return this.#current && podsOf(this.#current)
  }

  /** Waits until the agent has made up its mind about a pod, at most so long. Reports whether it has. */
  async settled(uid: string, timeoutMs: number): Promise<boolean> {
    return poll(timeoutMs, async () => {
      const found = (await this.pods())?.find(pod => pod.uid === uid)
      return found !== undefined && SETTLED.has(found.state)
    })
  }

  /**
   * Waits until discovery has told this agent that these pods, on whatever node, are ready and take tunnels; at most so long.
   * @param pods as `namespace/name`
   * @returns those of which it has not heard
   */
  async hears(pods: Iterable<string>, timeoutMs: number): Promise<ReadonlySet<string>> {
    const missing = new Set(pods)
    await poll(timeoutMs, async () => {
      const known = this.#current && (await adminJson<ConfigDump>(this.#current, '/config_dump'))
      if (known?.mesh.demand !== undefined) missing.clear() // it asks when it needs to know
      for (const { namespace, name, tunnelled, healthy } of known?.mesh.workloads ?? [])
        if (tunnelled && healthy) missing.delete(`${namespace}/${name}`)
      return missing.size === 0
    })
    return missing
  }

  /** Waits until the agent knows the pod no more, at most so long. */
  async forgotten(uid: string, timeoutMs: number): Promise<boolean> {
    return poll(timeoutMs, async () => {
      const pods = await this.pods()
      return pods === undefined || !pods.some(pod => pod.uid === uid)
    })
  }

  /** Waits until the agent answers. Throws `LAB` when it does not in time, or keeps ending. */
  async answers(timeoutMs: number): Promise<void> {
    let isEnding = false
    const didAnswer = await poll(timeoutMs, async () => {
      isEnding = (this.#current?.process.restarts ?? 0) > 5
      return isEnding || (await this.pods()) !== undefined
    })
    if (isEnding || !didAnswer)
      throw new CulvertError(
        'LAB',
        `the agent of ${this.node.name} ${isEnding ? 'keeps ending' : 'does not answer'}; it said last:\n${this.#said()}`,
      )
  }

  #said(): string {
    return lastLines(logPath(this.#context.paths, `agent-${this.node.name}`), 8)
  }

  async #serves(instance: Instance): Promise<void> {
    const wanted = this.#context.cluster.localPods(this.node.name).map(pod => pod.uid)
    const didServe = await poll(SERVE_TIMEOUT_MS, async () => {
      if (instance.process.restarts > 0) return true
      const pods = await podsOf(instance)
      return (
        wanted.every(uid => pods?.some(pod => pod.uid === uid && SETTLED.has(pod.state))) &&
        pods !== undefined
      )
    })
    if (didServe && instance.process.restarts === 0) return
    const why = didServe
      ? `ended (${instance.process.lastExit})`
      : `did not have all pods in ${SERVE_TIMEOUT_MS / 1000} s`
    throw new CulvertError('LAB', `the new agent of ${this.node.name} ${why}; the old one goes on`, {
      hint: `look at ${logPath(this.#context.paths, `agent-${this.node.name}`)}`,
    })
  }

  #create(): Instance {
    const { settings, paths, processesChanged } = this.#context
    const { name, netns } = this.node
    const number = ++this.#instances
    const adminSocket = join(this.#files.dir, `admin-${number}.sock`)
    const [cpIp] = CONTROL_PLANE_IPS
    const kept = new KeptProcess({
      name: `agent-${name}${number === 1 ? '' : ` (${number})`}`,
      argv: inNetnsArgv(netns, programArgv('agent/main.ts')),
      env: {
        ...programEnv(),
        NODE_NAME: name,
        TRUST_DOMAIN: settings.trustDomain,
        CLUSTER_ID: 'Kubernetes',
        XDS_ADDRESS: `https://${cpIp}:15012`,
        CA_ADDRESS: `https://${cpIp}:15012`,
        XDS_ROOT_CA: paths.root,
        CA_ROOT_CA: paths.root,
        AUTH_TOKEN_FILE: this.#files.token,
        POD_SOURCE: `static:${this.#files.pods}`,
        KUBELET_PROCESSES: settings.kubelet ?? 'any', // there is none in a lab
        NODE_NETNS: '/proc/self/ns/net',
        RUN_DIR: this.#files.agent,
        ADMIN_SOCKET: adminSocket,
        LOG_LEVEL: settings.logLevel,
        TERMINATION_GRACE_PERIOD_SECONDS: String(settings.graceSeconds),
        ...(settings.certTtl === undefined ? {} : { SECRET_TTL: settings.certTtl }),
        ...settings.agentEnv,
      },
      logFile: logPath(paths, `agent-${name}`),
      restartDelayMs: partRestartDelayMs,
      changed: processesChanged,
    })
    return { process: kept, adminSocket }
  }

  #pointAt({ adminSocket }: Instance): void {
    const fresh = `${this.#files.adminSocket}.new`
    rmSync(fresh, { force: true })
    symlinkSync(basename(adminSocket), fresh)
    renameSync(fresh, this.#files.adminSocket)
  }
}

function podsOf(instance: Instance): Promise<MeshState[] | undefined> {
  return adminJson(instance, '/pods')
}

async function adminJson<T>({ adminSocket }: Instance, path: string): Promise<T | undefined> {
  try {
    const { status, body } = await requestUnix(adminSocket, { path, timeoutMs: 2000 })
    return status === 200 ? (JSON.parse(body) as T) : undefined
  } catch {
    return undefined // not there yet, or not any more: whoever asks has a deadline of their own
  }
}

/** Asks again and again until it is so or the time is over; reports which. */
async function poll(timeoutMs: number, isSo: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = performance.now() + timeoutMs; performance.now() < deadline; await sleep(POLL_MS))
    if (await isSo()) return true
  return false
}
