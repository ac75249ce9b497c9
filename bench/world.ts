/**
 * The world that each arm is measured in: two nodes and a pod on each, in network namespaces of the lab's making, joined
 * as the lab joins them (pod, node, fabric, node, pod). It is built anew for every arm in every round, always with the
 * same addresses, so that no arm meets what another has left behind: no rule, no connection in TIME_WAIT, no conntrack
 * entry, no socket. The machine's own network has no part in it.
 */
import { mkdirSync } from 'node:fs'
import { cleanUp } from '../lab/cleanup.ts'
import { Cluster } from '../lab/cluster/cluster.ts'
import { labPaths, netnsName, nodePaths, type LabPaths } from '../lab/names.ts'
import { inNetnsArgv, setSysctls } from '../lab/net/namespaces.ts'
import { buildNetwork } from '../lab/supervisor/network.ts'
import { WorldFiles } from '../lab/supervisor/world-files.ts'
import type { KubePod } from '../lib/kube/objects.ts'
import { run, runOk, type Ran, type RunOptions } from '../lab/run.ts'

export type PodName = 'client' | 'server'

export interface BenchPod {
  readonly name: PodName
  readonly node: string
  readonly netns: string
  readonly ip: string
}

export const NAMESPACE = 'bench'

/** Where the applications of the server's pod listen; what an arm has to carry. */
export const APP_PORT = { iperf: 5201, echo: 7000, who: 7001, http: 8080 } as const
export const APP_PORTS: readonly number[] = Object.values(APP_PORT)

const PODS = {
  client: { node: 'node-a', ips: ['10.98.1.2', 'fd98:1::2'] },
  server: { node: 'node-b', ips: ['10.98.2.2', 'fd98:2::2'] },
} as const

/**
 * For both pods: a client that makes thousands of connections a second to one port has used up all of its ports in a few
 * seconds, and so has an agent that calls the application from the client's address; both would measure the kernel's search
 * for a free one among those that are long over.
 */
const POD_SYSCTLS = {
  'ipv4/tcp_tw_reuse': '1',
  'ipv4/tcp_max_tw_buckets': '1000',
  'ipv4/ip_local_port_range': '16384 65000',
}

export class World {
  readonly name: string
  readonly paths: LabPaths
  readonly cluster: Cluster
  readonly files: WorldFiles
  readonly client: BenchPod
  readonly server: BenchPod

  private constructor(name: string) {
    this.name = name
    this.paths = labPaths(name)
    const files: WorldFiles = new WorldFiles(() => this.cluster, this.paths)
    this.files = files
    this.cluster = new Cluster(name, [PODS.client.node, PODS.server.node], () => files.schedule())
    this.client = podPlace(name, 'client')
    this.server = podPlace(name, 'server')
  }

  /** Builds the namespaces. Throws `DENIED` or `LAB`, and then nothing is left. `name` is one that a lab may have. */
  static async build(name: string): Promise<World> {
    const world = new World(name)
    try {
      await world.#build()
      return world
    } catch (err) {
      await world.remove()
      throw err
    }
  }

  /** Ends whatever still runs in the namespaces, and removes them and all files. */
  async remove(): Promise<void> {
    this.files.close()
    await cleanUp(this.name, this.paths, undefined)
  }

  /** The command line that runs `argv` in a pod's namespace. */
  podArgv(pod: PodName, argv: readonly string[]): string[] {
    return inNetnsArgv(this[pod].netns, argv)
  }

  /** The command line that runs `argv` in a node's namespace. */
  nodeArgv(node: string, argv: readonly string[]): string[] {
    return inNetnsArgv(netnsName(this.name, node), argv)
  }

  /** Runs a program in a pod to its end. */
  run(pod: PodName, argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return run(this.podArgv(pod, argv), options)
  }

  /** Adds packet rules (text for iptables-restore) to a pod. Throws `TOOL`. */
  async addRules(pod: PodName, rules: string): Promise<void> {
    await runOk(this.podArgv(pod, ['iptables-restore', '--noflush', '-w', '5']), { input: rules })
  }

  async #build(): Promise<void> {
    const { cluster, paths } = this
    const dirs = cluster.nodes.map(({ name }) => nodePaths(paths, name).agent)
    for (const dir of [paths.logs, paths.ca, ...dirs]) mkdirSync(dir, { recursive: true, mode: 0o700 })
    cluster.put({
      kind: 'Namespace',
      metadata: { name: NAMESPACE, uid: '', annotations: { 'culvert.dev/mesh': 'enabled' } },
    })
    const pods = [this.client, this.server].map(pod => cluster.admit(podObject(pod)))
    await buildNetwork(cluster, pods)
    for (const { key } of pods) cluster.change(key, { isBuilt: true, phase: 'Running', ready: true })
    this.files.flush()
    await Promise.all([this.client, this.server].map(({ netns }) => setSysctls(netns, POD_SYSCTLS)))
  }
}

function podPlace(world: string, name: PodName): BenchPod {
  return { name, node: PODS[name].node, netns: netnsName(world, name), ip: PODS[name].ips[0] }
}

function podObject({ name, node }: BenchPod): KubePod {
  return {
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE, uid: '' },
    spec: {
      nodeName: node,
      serviceAccountName: name,
      hostNetwork: false,
      containers: [{ name: 'app' }],
      probePorts: [],
    },
    status: { phase: 'Pending', podIPs: PODS[name].ips, ready: false },
  }
}
