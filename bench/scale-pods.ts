/**
 * How an agent grows with the pods of its node: a lab with two nodes, the pods on one of them, a caller on the other. Pods
 * are there before they are enrolled; then their namespace is annotated, as an operator does it, and everything after that
 * is the agent's work. The applications in the pods are this process: it holds a socket in each of their namespaces.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, Socket, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inNetns, openNetns } from '../agent/sys/netns.ts'
import { closeFd, connectSocket, listenTcp } from '../agent/sys/socket.ts'
import { startLab, type Lab } from '../lab/lab.ts'
import { netnsPath } from '../lab/names.ts'
import { CulvertError } from '../lib/errors.ts'
import { cpuMs, endedCpuMs, residentBytes } from './measure/processes.ts'
import type { Series } from './model.ts'
import { median } from './stats.ts'

const MIB = 1024 * 1024
const NODE = 'node-a'
const NAMESPACE = 'fleet'
const PORT = 7000
/** Each look costs the agent a list of all pods. */
const POLL_MS = 50
const STATE_TIMEOUT_MS = 120_000
/** Until an agent at rest has given back what its start took. */
const REST_MS = 8000
/** After that it is watched for as long as this while nothing happens. */
const IDLE_MS = 5000
/** A connection that takes longer than this has failed. */
const CONNECT_TIMEOUT_MS = 10_000

export interface PodScaleOptions {
  /** How many pods, rising. */
  readonly counts: readonly number[]
  readonly isQuick: boolean
  readonly signal: AbortSignal
}

interface PodFigures {
  readonly pods: number
  readonly enrolSeconds: number
  readonly startSeconds: number
  readonly restingBytes: number
  /** Processor time of the enrolment, ms. */
  readonly cost: Cost
  /** Processor time of an agent with nothing to do, ms a second. */
  readonly idleMs: number
  /** Connect, a byte there and back: the first from the caller to each pod. */
  readonly firstMs: number
  /** The same to the same pods once more. */
  readonly nextMs: number
}

interface Cost {
  readonly agent: number
  /** What the agent has started and what has ended since. */
  readonly programs: number
  readonly caServer: number
}

/** One number of pods after the other, in one lab. Rejects with `DENIED` for who is not root, and `LAB`. */
export async function scalePods(
  progress: (what: string) => void,
  { counts, isQuick, signal }: PodScaleOptions,
): Promise<Series[]> {
  const fleet = await Fleet.start(signal)
  const found: PodFigures[] = []
  try {
    for (const pods of counts) {
      progress(`scale: ${pods} ${pods === 1 ? 'pod' : 'pods'} on a node`)
      found.push(await fleet.figures(pods, isQuick ? 500 : REST_MS, isQuick ? 500 : IDLE_MS))
    }
  } finally {
    await fleet.stop()
  }
  return seriesOf(found)
}

function seriesOf(found: readonly PodFigures[]): Series[] {
  const xLabel = 'enrolled pods on the node'
  return [
    {
      id: 'pods-rss',
      title: 'memory of an agent by pods of its node',
      xLabel,
      yLabel: 'resident memory',
      unit: 'MiB',
      points: found.map(({ pods, restingBytes }) => ({ x: pods, y: restingBytes / MIB })),
      about:
        'An agent that has been started with all of these pods there, some seconds after the last was enrolled.',
    },
    {
      id: 'pods-enrol',
      title: 'enrolment of a namespace by its pods',
      xLabel,
      yLabel: 'until all are enrolled',
      unit: 's',
      points: found.map(({ pods, enrolSeconds }) => ({ x: pods, y: enrolSeconds })),
      about:
        "From the namespace's annotation until the agent has every pod enrolled: certificate, listeners, rules.",
    },
    {
      id: 'pods-cpu',
      title: 'processor time of an enrolment by pods',
      xLabel,
      yLabel: 'for each pod',
      unit: 'ms',
      points: found.flatMap(({ pods, cost }) => [
        { arm: 'agent', x: pods, y: cost.agent / pods },
        { arm: 'its programs', x: pods, y: cost.programs / pods },
        { arm: 'ca-server', x: pods, y: cost.caServer / pods },
      ]),
      about:
        'Of the same enrolment: the agent, the programs that it started for it (iptables), and the ca-server; its holder processes, which have not ended, are not in it.',
    },
    {
      id: 'pods-idle',
      title: 'processor time of an agent at rest by pods of its node',
      xLabel,
      yLabel: 'a second',
      unit: 'ms',
      points: found.map(({ pods, idleMs }) => ({ x: pods, y: idleMs })),
      about: 'With everything that it has started, while nothing happens.',
    },
    {
      id: 'pods-start',
      title: 'start of an agent by pods of its node',
      xLabel,
      yLabel: 'until it has all',
      unit: 's',
      points: found.map(({ pods, startSeconds }) => ({ x: pods, y: startSeconds })),
      about:
        'From the start of the process, after another has been stopped, until it has every pod enrolled.',
    },
    {
      id: 'pods-first',
      title: 'first connection by pods of the node',
      xLabel,
      yLabel: 'median',
      unit: 'ms',
      points: found.flatMap(({ pods, firstMs, nextMs }) => [
        { arm: 'first', x: pods, y: firstMs },
        { arm: 'next', x: pods, y: nextMs },
      ]),
      about:
        'A caller on another node connects and sends a byte there and back: to each pod that has come since the number before, for the first time (with the handshake of both agents), and once more.',
    },
  ]
}

interface FleetPod {
  readonly ip: string
  readonly server: Server
}

class Fleet {
  readonly #lab: Lab
  readonly #directory: string
  readonly #callerFd: number
  readonly #signal: AbortSignal
  readonly #pods: FleetPod[] = []

  private constructor(lab: Lab, directory: string, callerFd: number, signal: AbortSignal) {
    this.#lab = lab
    this.#directory = directory
    this.#callerFd = callerFd
    this.#signal = signal
  }

  static async start(signal: AbortSignal): Promise<Fleet> {
    if (process.getuid?.() !== 0)
      throw new CulvertError('DENIED', 'growth with pods is measured in network namespaces, which need root')
    const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-fleet-'))
    const file = join(directory, 'lab.yaml')
    await writeFile(file, LAB_FILE)
    const lab = await startLab({
      name: `scale_${process.pid}`,
      file,
      logLevel: 'warn',
      graceSeconds: 1,
      signal,
    })
    try {
      await lab.waitForPod('caller', ['enrolled'])
      const callerFd = openNetns(netnsPath((await lab.pod('caller')).netns))
      return new Fleet(lab, directory, callerFd, signal)
    } catch (err) {
      await lab.down()
      throw err
    }
  }

  async stop(): Promise<void> {
    for (const { server } of this.#pods) server.close()
    closeFd(this.#callerFd)
    await this.#lab.down()
    await rm(this.#directory, { recursive: true, force: true })
  }

  async figures(pods: number, restMs: number, idleMs: number): Promise<PodFigures> {
    const fresh = await this.#grow(pods)
    const before = await this.#cost()
    const enrolSeconds = await this.#timed(pods, 'enrolled', () => this.#setMesh('enabled'))
    const after = await this.#cost()
    const first = await this.#connectToAll(fresh)
    const next = await this.#connectToAll(fresh)
    await this.#lab.stopAgent(NODE)
    const startSeconds = await this.#timed(pods, 'enrolled', () => this.#lab.startAgent(NODE))
    await sleep(restMs, undefined, { signal: this.#signal })
    const { agentPid } = await this.#processes()
    const restingBytes = residentBytes([agentPid])
    const usedMs = cpuMs([agentPid]) + endedCpuMs(agentPid)
    await sleep(idleMs, undefined, { signal: this.#signal })
    const idleUsedMs = cpuMs([agentPid]) + endedCpuMs(agentPid) - usedMs
    await this.#timed(pods, 'not-enrolled', () => this.#setMesh('disabled'))
    return {
      pods,
      enrolSeconds,
      startSeconds,
      restingBytes,
      cost: {
        agent: after.agent - before.agent,
        programs: after.programs - before.programs,
        caServer: after.caServer - before.caServer,
      },
      idleMs: (idleUsedMs * 1000) / idleMs,
      firstMs: median(first),
      nextMs: median(next),
    }
  }

  #setMesh(value: 'enabled' | 'disabled'): Promise<void> {
    return this.#lab.annotate(`namespace/${NAMESPACE}`, { 'culvert.dev/mesh': value })
  }

  /** Adds pods until there are so many; gives those that were added. */
  async #grow(pods: number): Promise<FleetPod[]> {
    const names = Array.from({ length: pods - this.#pods.length }, (_, at) => `pod-${this.#pods.length + at}`)
    if (names.length === 0) return this.#pods
    const added = await this.#lab.addPods(names.map(podManifest).join('---\n'))
    const fresh = added.map(({ netns, ips }) => ({ ip: ips[0]!, server: serveIn(netns) }))
    this.#pods.push(...fresh)
    return fresh
  }

  /** Seconds until the agent has so many pods in the state, from when `begin` was called. */
  async #timed(pods: number, state: string, begin: () => Promise<void>): Promise<number> {
    const startMs = performance.now()
    await begin()
    let count = 0
    while (performance.now() - startMs < STATE_TIMEOUT_MS) {
      this.#signal.throwIfAborted()
      count = await this.#countIn(state)
      if (count >= pods) return (performance.now() - startMs) / 1000
      await sleep(POLL_MS)
    }
    throw new CulvertError(
      'TIMEOUT',
      `${count} of ${pods} pods are ${state} after ${STATE_TIMEOUT_MS / 1000} s`,
    )
  }

  async #countIn(state: string): Promise<number> {
    try {
      const { status, body } = await this.#lab.agentAdmin(NODE, '/pods')
      if (status !== 200) return 0
      const pods = JSON.parse(body) as readonly { namespace: string; state: string }[]
      return pods.filter(pod => pod.namespace === NAMESPACE && pod.state === state).length
    } catch {
      return 0 // it does not answer yet
    }
  }

  async #cost(): Promise<Cost> {
    const { agentPid, caServerPid } = await this.#processes()
    return { agent: cpuMs([agentPid]), programs: endedCpuMs(agentPid), caServer: cpuMs([caServerPid]) }
  }

  async #processes(): Promise<{ agentPid: number; caServerPid: number }> {
    const { nodes, caServer } = await this.#lab.status()
    const agentPid = nodes.find(node => node.name === NODE)?.agent?.pid
    if (agentPid === undefined || caServer.pid === undefined)
      throw new CulvertError('LAB', `the agent of ${NODE} or the ca-server does not run`)
    return { agentPid, caServerPid: caServer.pid }
  }

  /** Milliseconds for each, one after the other. */
  async #connectToAll(pods: readonly FleetPod[]): Promise<number[]> {
    const took: number[] = []
    for (const { ip } of pods) {
      this.#signal.throwIfAborted()
      const startMs = performance.now()
      await echoOnce(this.#callerFd, ip)
      took.push(performance.now() - startMs)
    }
    return took
  }
}

const LAB_FILE = `
apiVersion: v1
kind: Namespace
metadata: { name: ${NAMESPACE} }
---
apiVersion: v1
kind: Namespace
metadata: { name: calling, annotations: { culvert.dev/mesh: enabled } }
---
apiVersion: v1
kind: Node
metadata: { name: ${NODE} }
---
apiVersion: v1
kind: Node
metadata: { name: node-b }
---
apiVersion: v1
kind: Pod
metadata: { name: caller, namespace: calling }
spec:
  nodeName: node-b
  serviceAccountName: caller
  containers: [{ name: shell, command: [sleep, infinity] }]
`

function podManifest(name: string): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${NAMESPACE} }
spec:
  nodeName: ${NODE}
  serviceAccountName: ${name}
  containers: [{ name: shell, command: [sleep, infinity] }]
`
}

/** An echo server in a namespace. */
function serveIn(netns: string): Server {
  const netnsFd = openNetns(netnsPath(netns))
  try {
    const fd = inNetns(netnsFd, () => listenTcp({ port: PORT }))
    const server = createServer(socket => {
      socket.on('error', () => undefined) // the caller has reset it: it has what it wanted
      socket.pipe(socket)
    })
    server.listen({ fd })
    return server
  } finally {
    closeFd(netnsFd)
  }
}

/** Connects from a namespace, sends a byte, waits until it is back, and closes. Rejects with the socket's error. */
async function echoOnce(netnsFd: number, host: string): Promise<void> {
  const fd = inNetns(netnsFd, () => connectSocket({ family: 4, mark: 0 }))
  const socket = new Socket({ fd })
  try {
    socket.connect({ host, port: PORT })
    socket.setNoDelay()
    socket.write('x')
    await once(socket, 'data', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) })
  } finally {
    socket.destroy()
  }
}
