/**
 * Pods coming and going, in the order that a kubelet and a CNI keep: known to the cluster, then a network, then
 * captured by the agent, and only then the application; backwards when it goes.
 */
import type { KubePod } from '../../lib/kube/objects.ts'
import { boundNamespaceInode, processesIn, signalProcess } from '../processes.ts'
import type { LabPod } from '../cluster/cluster.ts'
import { logPath, netnsPath, netnsPrefix } from '../names.ts'
import { addNetns, ipIn, removeNetns, setSysctls } from '../net/namespaces.ts'
import { BASE_SYSCTLS, podBatch, podLinkBatch, type PodPlan } from '../net/topology.ts'
import type { NodeAgent } from './agents.ts'
import { containersOf } from './containers.ts'
import type { LabContext } from './context.ts'
import type { KeptProcess } from './kept-process.ts'

/** What a pod that comes later waits for its agent, and then for its containers: a kubelet does not wait for ever. */
const SETTLE_TIMEOUT_MS = 5000
const FORGET_TIMEOUT_MS = 2000
/** Kubernetes' default. */
const DEFAULT_GRACE_SECONDS = 30

export class PodRunner {
  readonly #context: LabContext
  readonly #agentOf: (node: string) => NodeAgent | undefined
  readonly #containers = new Map<string, KeptProcess[]>()

  /** `agentOf` gives undefined for a node whose data plane is someone else's. */
  constructor(context: LabContext, agentOf: (node: string) => NodeAgent | undefined) {
    this.#context = context
    this.#agentOf = agentOf
  }

  processes(): KeptProcess[] {
    return [...this.#containers.values()].flat()
  }

  containers(key: string): readonly KeptProcess[] {
    return this.#containers.get(key) ?? []
  }

  /** Adds a pod and resolves when its containers are started and ready. Throws `LAB` when it cannot be placed or built. */
  async add(wanted: KubePod): Promise<LabPod> {
    const labPod = this.#context.cluster.admit(wanted)
    this.#context.files.flush()
    try {
      if (labPod.plan) await addNetns([labPod.netns])
      await this.build(labPod)
    } catch (err) {
      this.#context.cluster.forget(labPod.key)
      await this.#unbuild(labPod)
      throw err
    }
    await this.run(labPod)
    return labPod
  }

  /** Gives an admitted pod, whose namespace was made, its links and addresses. */
  async build({ key, plan, node }: LabPod): Promise<void> {
    const { cluster } = this.#context
    if (plan) {
      await setSysctls(plan.netns, BASE_SYSCTLS)
      await ipIn(cluster.nodes.find(({ name }) => name === node)!.netns, podLinkBatch(plan))
      await ipIn(plan.netns, podBatch(plan))
    }
    cluster.change(key, { isBuilt: true })
    this.#context.files.flush()
  }

  /** Starts the containers of a built pod once its agent has captured it, or has said that it will not. */
  async run(labPod: LabPod, timeoutMs = SETTLE_TIMEOUT_MS): Promise<void> {
    const { cluster, processesChanged } = this.#context
    const { key, pod, node, plan } = labPod
    const agent = this.#agentOf(node)
    if (plan && agent && !(await agent.settled(pod.metadata.uid, timeoutMs)))
      this.#context.warn(
        `${key}: the agent of ${node} has not settled it in ${timeoutMs} ms; starting it all the same`,
      )
    if (!cluster.pod(key)) return // deleted meanwhile
    const ready = Promise.withResolvers<void>()
    const containers = containersOf(labPod, this.logFile(labPod), () => {
      const isReady = containers.every(container => container.isReady)
      cluster.change(key, { ready: isReady })
      if (isReady) ready.resolve()
      processesChanged()
    })
    this.#containers.set(key, containers)
    cluster.change(key, { phase: 'Running' })
    for (const container of containers) container.start()
    const timer = setTimeout(() => {
      this.#context.warn(`${key}: not ready after ${timeoutMs} ms; see ${this.logFile(labPod)}`)
      ready.resolve()
    }, timeoutMs)
    await ready.promise
    clearTimeout(timer)
  }

  /** Removes a pod; resolves when nothing of it is left. A pod that is not there is no error. */
  async remove(key: string, graceSeconds?: number): Promise<void> {
    const { cluster, files } = this.#context
    const labPod = cluster.pod(key)
    if (!labPod || labPod.pod.metadata.deletionTimestamp !== undefined) return
    const grace = graceSeconds ?? labPod.pod.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS
    cluster.change(key, { graceSeconds: grace })
    files.flush()
    await this.stop(key, grace * 1000)
    cluster.change(key, { isBuilt: false, phase: 'Succeeded', ready: false })
    files.flush()
    await this.#agentOf(labPod.node)?.forgotten(labPod.pod.metadata.uid, FORGET_TIMEOUT_MS)
    await this.#unbuild(labPod)
    cluster.forget(key)
    files.flush()
  }

  /** Ends a pod's containers and nothing else. */
  async stop(key: string, graceMs: number): Promise<void> {
    const containers = this.#containers.get(key) ?? []
    await Promise.all(containers.map(container => container.stop('SIGTERM', graceMs)))
    this.#containers.delete(key)
    this.#context.processesChanged()
  }

  /** Where a pod's containers write: named like its namespace, which is unique. */
  logFile({ pod, netns, plan }: LabPod): string {
    const { namespace = 'default', name } = pod.metadata
    const short = plan ? netns.slice(netnsPrefix(this.#context.settings.name).length) : `${namespace}-${name}`
    return logPath(this.#context.paths, short)
  }

  async #unbuild({ plan, node }: LabPod): Promise<void> {
    if (!plan) return
    await this.#unlink(plan, node)
    // What was run in the pod from outside, or has left its process group.
    const inode = boundNamespaceInode(netnsPath(plan.netns))
    const left = inode === undefined ? [] : processesIn('net', new Set([inode]))
    // An agent that is just looking into the namespace is not part of the pod.
    const agents = new Set(
      this.#agentOf(node)
        ?.processes()
        .map(({ ref }) => ref?.pid),
    )
    for (const ref of left) if (!agents.has(ref.pid)) signalProcess(ref, 'SIGKILL')
    await removeNetns([plan.netns])
  }

  async #unlink(plan: PodPlan, node: string): Promise<void> {
    const home = this.#context.cluster.nodes.find(({ name }) => name === node)!
    await ipIn(home.netns, [`link delete ${plan.link}`]).catch(() => undefined) // it was never made
  }
}
