/**
 * The one process that owns a lab: it builds the network, starts the control plane and the agents, runs the
 * pods, follows the lab file, and takes everything down again.
 */
import { appendFileSync, mkdirSync } from 'node:fs'
import { errorText } from '../../lib/errors.ts'
import { keyOf } from '../../lib/kube/manifest.ts'
import type { KubePod, ObjectMeta } from '../../lib/kube/objects.ts'
import { unlessAborted } from '../../lib/unless-aborted.ts'
import { cleanUp } from '../cleanup.ts'
import { planChanges } from '../cluster/apply.ts'
import { Cluster, type LabPod } from '../cluster/cluster.ts'
import { readLabFile, type LabFile } from '../cluster/lab-file.ts'
import { logPath, nodePaths, type LabPaths } from '../names.ts'
import { alreadyUp, isUp, readState, takeLab, writeState, type LabState } from '../state.ts'
import type { LabContext, LabSettings } from './context.ts'
import { watchFile } from './file-watch.ts'
import { limitLogs } from './log-limit.ts'
import { buildNetwork } from './network.ts'
import { Parts } from './parts.ts'
import { PodRunner } from './pods.ts'
import { WorldFiles } from './world-files.ts'

export interface SupervisorOptions {
  readonly settings: LabSettings
  readonly paths: LabPaths
  /** The lab file, absolute; it is followed. */
  readonly file: string
  readonly isRootless: boolean
  /** Told what is being done, one short phrase each. */
  readonly progress: (step: string) => void
  /** Gives up building the lab; what is up is not affected. */
  readonly signal: AbortSignal
}

/** What ending may take, ms: containers, then agents and ca-server. Everything is killed after it. */
const CONTAINER_END_MS = 1000
const PART_END_MS = 1500
/** What a start may take on a machine with much else to do, ms: for an agent to answer, then for each pod. */
const START_TIMEOUT_MS = 60_000
/** What discovery may take to tell every agent of a pod, ms. */
const HEAR_TIMEOUT_MS = 10_000
const MAX_WARNINGS = 100

export class Supervisor {
  readonly options: SupervisorOptions
  readonly startedAt = new Date()
  readonly warnings: string[] = []
  /** Why the lab file as it is now is not followed. */
  fileProblem: string | undefined
  readonly #watching = new AbortController()
  #state: LabState
  #file: LabFile
  readonly #context: LabContext
  readonly #parts: Parts
  readonly #pods: PodRunner
  #applying: Promise<void> = Promise.resolve()
  #isEnding = false

  private constructor(
    options: SupervisorOptions,
    state: LabState,
    file: LabFile,
    context: LabContext,
    parts: Parts,
  ) {
    this.options = options
    this.#state = state
    this.#file = file
    this.#context = context
    this.#parts = parts
    this.#pods = new PodRunner(context, node => parts.agents.get(node))
  }

  /** Builds the lab. Resolves when every pod is ready; when it fails, nothing is left and the reason is thrown. */
  static async up(options: SupervisorOptions): Promise<Supervisor> {
    const { settings, paths, signal } = options
    const file = readLabFile(options.file)
    const state = await claim(options)
    let supervisor: Supervisor | undefined
    try {
      makeDirs(paths, file)
      const files: WorldFiles = new WorldFiles(() => cluster, paths)
      const cluster: Cluster = new Cluster(settings.name, file.nodes, () => files.schedule())
      for (const object of file.objects) if (object.kind !== 'Pod') cluster.put(object)
      const pods = file.objects.filter(object => object.kind === 'Pod').map(pod => cluster.admit(pod))
      const context: LabContext = {
        settings,
        paths,
        cluster,
        files,
        warn: message => supervisor?.warn(message),
        processesChanged: () => supervisor?.writeState(),
      }
      const parts = await Parts.create(context)
      supervisor = new Supervisor(options, state, file, context, parts)
      await unlessAborted(supervisor.#start(pods), signal)
      return supervisor
    } catch (err) {
      if (supervisor) await supervisor.#end()
      await cleanUp(settings.name, paths, supervisor?.state ?? state)
      throw err
    }
  }

  get state(): LabState {
    return this.#state
  }

  get cluster(): Cluster {
    return this.#context.cluster
  }

  get parts(): Parts {
    return this.#parts
  }

  get pods(): PodRunner {
    return this.#pods
  }

  warn(message: string): void {
    if (this.warnings.length < MAX_WARNINGS) this.warnings.push(message)
    appendFileSync(logPath(this.options.paths, 'lab'), `${new Date().toISOString()} ${message}\n`)
    process.stderr.write(`culvert lab: ${message}\n`)
  }

  /** Notes which processes there are, for whoever has to clean up after this one. */
  writeState(): void {
    if (this.#isEnding) return
    const kept = [...this.#parts.processes(), ...this.#pods.processes()]
    const processes = Object.fromEntries(kept.flatMap(({ name, ref }) => (ref ? [[name, ref]] : [])))
    this.#state = { ...this.#state, processes }
    writeState(this.options.paths, this.#state)
  }

  /** Changes annotations of `Namespace x`, `Pod ns/x` or anything else; null takes one away. Throws `LAB`. */
  annotate(key: string, changes: Readonly<Record<string, string | null>>): ObjectMeta {
    const before = this.cluster.get(key)?.metadata.annotations ?? {}
    const entries = Object.entries({ ...before, ...changes })
    const annotations = Object.fromEntries(entries.filter(([, value]) => value !== null)) as Record<
      string,
      string
    >
    this.cluster.relabel(key, { annotations })
    this.#context.files.flush()
    return this.cluster.get(key)!.metadata
  }

  /** Adds pods; resolves when all are ready and every agent knows of them. */
  async addPods(wanted: readonly KubePod[]): Promise<LabPod[]> {
    const added = await Promise.all(wanted.map(pod => this.#pods.add(pod)))
    await this.#heard(new Set(added.map(({ pod }) => pod.metadata.uid)))
    return added
  }

  /** Takes everything down and removes it. */
  async down(): Promise<void> {
    await this.#end()
    await cleanUp(this.options.settings.name, this.options.paths, this.#state)
  }

  async #start(pods: readonly LabPod[]): Promise<void> {
    const { progress, file } = this.options
    progress('network')
    await buildNetwork(this.cluster, pods)
    for (const pod of pods) this.cluster.change(pod.key, { isBuilt: true })
    this.#context.files.flush()
    progress('ca-server and agents')
    this.#parts.start()
    await Promise.all([...this.#parts.agents.values()].map(agent => agent.answers(START_TIMEOUT_MS)))
    progress('pods')
    await Promise.all(pods.map(pod => this.#pods.run(pod, START_TIMEOUT_MS)))
    await this.#heard()
    limitLogs(this.options.paths.logs, this.#watching.signal, name =>
      this.warn(`${name} grew too long and was emptied`),
    )
    watchFile(file, this.#watching.signal, () => this.#follow())
  }

  /** Every agent knows every pod that is in the mesh, or those of these: the first connection is carried like any later one. */
  async #heard(uids?: ReadonlySet<string>): Promise<void> {
    const asked = [...this.#parts.agents.values()].map(async agent => ({ agent, pods: await agent.pods() }))
    const answered = (await Promise.all(asked)).filter(({ pods }) => pods !== undefined)
    const enrolled = answered
      .flatMap(({ pods }) => pods ?? [])
      .filter(({ uid, state }) => state === 'enrolled' && (uids?.has(uid) ?? true))
      .map(({ namespace, name }) => `${namespace}/${name}`)
      .filter(name => this.cluster.pod(`Pod ${name}`)?.pod.status.ready)
    await Promise.all(
      answered.map(async ({ agent }) => {
        const missing = await agent.hears(enrolled, HEAR_TIMEOUT_MS)
        if (missing.size > 0)
          this.warn(`the agent of ${agent.node.name} has not heard of ${[...missing].join(', ')} yet`)
      }),
    )
  }

  /** The lab file has changed: brings the lab after it, one version at a time. */
  #follow(): void {
    this.#applying = this.#applying
      .then(() => this.#apply())
      .catch((err: unknown) => {
        this.fileProblem = errorText(err)
        this.warn(`the lab file is not followed: ${this.fileProblem}`)
      })
  }

  async #apply(): Promise<void> {
    const file = readLabFile(this.options.file)
    const plan = planChanges(this.#file.objects, file.objects)
    this.#file = file
    this.fileProblem = undefined
    const { cluster } = this
    for (const object of plan.put) cluster.put(object)
    for (const { metadata, ...pod } of plan.relabelPods) {
      const { labels = {}, annotations = {} } = metadata
      cluster.relabel(keyOf({ metadata, ...pod }), { labels, annotations })
    }
    const renewed = plan.replacePods.map(async pod => {
      await this.#pods.remove(keyOf(pod))
      await this.#pods.add(pod)
    })
    const done = await Promise.allSettled([
      ...plan.removePods.map(key => this.#pods.remove(key)),
      ...plan.addPods.map(pod => this.#pods.add(pod)),
      ...renewed,
    ])
    for (const key of plan.drop) cluster.drop(key)
    const failed = done.filter(result => result.status === 'rejected')
    if (failed.length > 0)
      throw new AggregateError(failed, failed.map(({ reason }) => errorText(reason)).join('; '))
  }

  /** Stops following, then containers, agents and ca-server. Whatever resists is left to the cleaning. */
  async #end(): Promise<void> {
    this.#isEnding = true
    this.#watching.abort()
    await Promise.all(this.cluster.pods().map(({ key }) => this.#pods.stop(key, CONTAINER_END_MS)))
    await this.#parts.stop(PART_END_MS)
    this.#context.files.close()
  }
}

/** Takes the lab's name, once what an earlier lab of that name has left is cleaned. Throws `LAB` when it is up. */
async function claim({
  settings: { name },
  paths,
  isRootless,
  progress,
}: SupervisorOptions): Promise<LabState> {
  const before = readState(paths)
  if (isUp(before)) throw alreadyUp(name)
  if (before) progress('cleaning up after an earlier lab')
  // Without a state there may still be namespaces: their names are enough.
  await cleanUp(name, paths, before)
  return takeLab(paths, name, isRootless)
}

function makeDirs(paths: LabPaths, file: LabFile): void {
  for (const dir of [paths.logs, paths.ca, ...file.nodes.map(node => nodePaths(paths, node).agent)])
    mkdirSync(dir, { recursive: true, mode: 0o700 })
}
