/**
 * A lab from outside: starting one, finding one that is up, and everything that can be done with it. The command
 * `culvert lab`, the demo, the benches and the tests all go through here.
 */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError } from '../lib/errors.ts'
import { toolEnv } from '../lib/tool-path.ts'
import { cleanUp, type Cleaned } from './cleanup.ts'
import { Capture } from './client/capture.ts'
import { askSupervisor } from './client/control-client.ts'
import { enterArgv } from './client/enter.ts'
import { noSuchLab, podOf } from './client/find.ts'
import { requestUnix, type UnixResponse } from './http.ts'
import { spawnLab, type StartOptions } from './client/start.ts'
import { labPaths, netnsName, nodePaths, type LabPaths } from './names.ts'
import { isAlive, signalProcess, waitGone, type ProcessRef } from './processes.ts'
import { run, type Ran, type RunOptions } from './run.ts'
import { isUp, readState, type LabState } from './state.ts'
import type { LabStatus, PodPlace, PodStatus } from './status.ts'
import { programArgv } from './supervisor/context.ts'

export type { StartOptions } from './client/start.ts'

/** A pod that was added. */
export interface AddedPod {
  readonly key: string
  readonly uid: string
  readonly node: string
  readonly netns: string
  readonly ips: readonly string[]
}

const DOWN_TIMEOUT_MS = 10_000
const POLL_MS = 20

/** Starts a lab. Resolves when every pod is ready. When it fails nothing is left, and the error says why. */
export async function startLab(options: StartOptions = {}): Promise<Lab> {
  const { paths, state } = await spawnLab(options)
  return new Lab(paths, state)
}

/** The lab of that name, which must be up. Throws `LAB` when it is not. */
export function openLab(name = 'default'): Lab {
  const paths = labPaths(name)
  const state = readState(paths)
  if (!isUp(state)) throw noSuchLab(name, state !== undefined)
  return new Lab(paths, state)
}

/** Ends the lab of that name, or cleans up what a crashed one has left. Undefined when there was nothing at all. */
export async function downLab(name = 'default'): Promise<Cleaned | 'down' | undefined> {
  const paths = labPaths(name)
  const state = readState(paths)
  if (isUp(state)) {
    await new Lab(paths, state).down()
    return 'down'
  }
  const cleaned = await cleanUp(name, paths, state)
  return state || cleaned.namespaces > 0 || cleaned.processes > 0 ? cleaned : undefined
}

export class Lab {
  readonly paths: LabPaths
  readonly #state: LabState

  constructor(paths: LabPaths, state: LabState) {
    this.paths = paths
    this.#state = state
  }

  get name(): string {
    return this.#state.name
  }

  get supervisor(): ProcessRef {
    return this.#state.supervisor
  }

  async status(): Promise<LabStatus> {
    return (await this.#ask('GET', '/status')) as LabStatus
  }

  /** The pod meant by `name` or `namespace/name`. Throws `LAB` when there is none, or more than one. */
  async pod(pod: string): Promise<PodPlace> {
    return podOf(this.name, (await this.#ask('GET', '/pods')) as PodPlace[], pod)
  }

  /** The command line that runs `argv` in a pod's namespace. */
  async podArgv(pod: string, argv: readonly string[]): Promise<string[]> {
    return enterArgv(this.#state, (await this.pod(pod)).netns, argv)
  }

  /** The command line that runs `argv` in the namespace of a node; `cp` and `fabric` are namespaces too. */
  nodeArgv(node: string, argv: readonly string[]): string[] {
    return enterArgv(this.#state, netnsName(this.name, node), argv)
  }

  /** Runs a program in a pod to its end. */
  async exec(pod: string, argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return run(await this.podArgv(pod, argv), options)
  }

  /** Starts a program in a pod; the caller owns it, its streams and their errors. */
  async spawn(pod: string, argv: readonly string[], options: SpawnOptions = {}): Promise<ChildProcess> {
    const [command = '', ...args] = await this.podArgv(pod, argv)
    return spawn(command, args, { env: toolEnv(), ...options })
  }

  /** Runs a program in the namespace of a node. */
  async execOnNode(node: string, argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return run(this.nodeArgv(node, argv), options)
  }

  /** Adds the pods of a manifest; resolves when their containers are ready. Throws `INPUT` or `LAB`. */
  async addPods(manifest: string): Promise<AddedPod[]> {
    return (await this.#ask('POST', '/pods', manifest)) as AddedPod[]
  }

  /** Deletes a pod; resolves when nothing is left of it. `graceSeconds` overrides the pod's own. */
  async delPod(pod: string, graceSeconds?: number): Promise<void> {
    const { namespace, name } = await this.pod(pod)
    const query = graceSeconds === undefined ? '' : `?grace=${graceSeconds}`
    await this.#ask('DELETE', `/pods/${namespace}/${name}${query}`)
  }

  /** Sets annotations (null removes one) of `namespace/NAME`, `pod/NAME`, `pod/NAMESPACE/NAME` or `node/NAME`. */
  async annotate(target: string, changes: Readonly<Record<string, string | null>>): Promise<void> {
    await this.#ask('POST', '/annotate', JSON.stringify({ key: await this.#keyOf(target), changes }))
  }

  /** Waits until a pod is in one of these mesh states. Throws `TIMEOUT` with the state it was in. */
  async waitForPod(pod: string, states: readonly string[], timeoutMs = 30_000): Promise<PodStatus> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const found = podOf(this.name, (await this.status()).pods, pod)
      if (states.includes(found.mesh)) return found
      if (Date.now() > deadline)
        throw new CulvertError(
          'TIMEOUT',
          `pod ${pod} is ${found.mesh} (${found.meshDetail}), not ${states.join(' or ')}`,
        )
      await sleep(POLL_MS)
    }
  }

  /** Asks the admin interface of a node's agent. */
  async agentAdmin(node: string, path: string, method = 'GET'): Promise<UnixResponse> {
    return requestUnix(nodePaths(this.paths, node).adminSocket, { path, method })
  }

  /** Signals a node's agent; the supervisor starts another when that ends it. Gives the process that was signalled. */
  async killAgent(node: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<ProcessRef> {
    return this.kill(`agent-${node}`, signal)
  }

  /** Signals `ca-server` or `agent-NODE`. */
  async kill(part: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<ProcessRef> {
    return (await this.#ask('POST', `/kill/${encodeURIComponent(part)}?signal=${signal}`)) as ProcessRef
  }

  /** Puts a new agent beside a node's old one and ends the old one; resolves when that is gone. */
  async replaceAgent(node: string): Promise<void> {
    await this.#ask('POST', `/agents/${encodeURIComponent(node)}/replace`)
  }

  async stopAgent(node: string): Promise<void> {
    await this.#ask('POST', `/agents/${encodeURIComponent(node)}/stop`)
  }

  async startAgent(node: string): Promise<void> {
    await this.#ask('POST', `/agents/${encodeURIComponent(node)}/start`)
  }

  async stopCaServer(): Promise<void> {
    await this.#ask('POST', '/ca-server/stop')
  }

  async startCaServer(): Promise<void> {
    await this.#ask('POST', '/ca-server/start')
  }

  /** The command line that writes what passes a node's link to the other nodes, as a pcap file, to its output. */
  captureArgv(node: string): string[] {
    return this.nodeArgv(node, [...programArgv('lab/capture/main.ts'), 'eth0'])
  }

  /** Captures what passes a node's link to the other nodes, in memory. */
  async capture(node: string): Promise<Capture> {
    return Capture.start(this.captureArgv(node))
  }

  /** Resolves when the lab's supervisor has ended, in whatever way; rejects when the signal aborts. */
  async ended(signal: AbortSignal): Promise<void> {
    while (isAlive(this.supervisor)) await sleep(100, undefined, { signal })
  }

  /** Takes the lab down; resolves when nothing is left of it. */
  async down(): Promise<void> {
    if (isAlive(this.supervisor)) signalProcess(this.supervisor, 'SIGTERM')
    if (!(await waitGone(this.supervisor, DOWN_TIMEOUT_MS))) {
      signalProcess(this.supervisor, 'SIGKILL')
      await waitGone(this.supervisor, DOWN_TIMEOUT_MS)
    }
    await cleanUp(this.name, this.paths, readState(this.paths))
  }

  async #keyOf(target: string): Promise<string> {
    const [kind = '', ...rest] = target.split('/')
    const name = rest.join('/')
    if (/^(namespace|ns)$/.test(kind) && name) return `Namespace ${name}`
    if (kind === 'node' && name) return `Node ${name}`
    if (/^(pod|po)$/.test(kind) && name) {
      const pod = await this.pod(name)
      return `Pod ${pod.namespace}/${pod.name}`
    }
    throw new CulvertError('INPUT', `'${target}' is nothing that can be annotated`, {
      hint: 'name it as namespace/NAME, pod/NAME, pod/NAMESPACE/NAME or node/NAME',
    })
  }

  async #ask(method: string, path: string, body?: string): Promise<unknown> {
    return askSupervisor(this.paths, { method, path, ...(body === undefined ? {} : { body }) })
  }
}
