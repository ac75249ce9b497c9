/**
 * A cluster as its administrator sees it, through kubectl: real requests with real rights, and nothing that a user of
 * Culvert could not do as well.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { CulvertError } from '../../lib/errors.ts'
import { run, type Ran } from '../../lab/run.ts'

/** `namespace/name`. */
export type PodName = `${string}/${string}`

/** Fields of a Kubernetes object that are looked at here; everything else is still there. */
export interface KubeJson {
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly labels?: Readonly<Record<string, string>>
    readonly deletionTimestamp?: string
  }
  readonly spec: {
    readonly nodeName?: string
    readonly replicas?: number
    readonly template?: { readonly spec: { readonly terminationGracePeriodSeconds?: number } }
  }
  readonly status: {
    readonly podIP?: string
    readonly phase?: string
    readonly conditions?: readonly { readonly type: string; readonly status: string }[]
    readonly containerStatuses?: readonly {
      readonly name: string
      readonly restartCount: number
      readonly state?: { readonly running?: { readonly startedAt?: string } }
    }[]
  }
}

export class Kubectl {
  readonly #env: NodeJS.ProcessEnv
  readonly #running = new Set<ChildProcess>()

  /** The environment names the cluster (KUBECONFIG) and where kubectl is (PATH). */
  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env
  }

  /** Runs kubectl to its end, whatever comes of it. */
  run(args: readonly string[], input?: string): Promise<Ran> {
    return run(['kubectl', ...args], { env: this.#env, ...(input === undefined ? {} : { input }) })
  }

  /** What a command that must succeed has printed. Throws `KUBERNETES` with what it said. */
  async ok(args: readonly string[], input?: string): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, input)
    if (code === 0) return stdout.toString()
    throw new CulvertError('KUBERNETES', `kubectl ${args.join(' ')} failed (${code}): ${stderr.trim()}`)
  }

  /** `kubectl get` as JSON: one object, or the items of a list. */
  async get(...args: readonly string[]): Promise<KubeJson> {
    return JSON.parse(await this.ok(['get', ...args, '-o', 'json'])) as KubeJson
  }

  async list(...args: readonly string[]): Promise<KubeJson[]> {
    const { items } = JSON.parse(await this.ok(['get', ...args, '-o', 'json'])) as { items: KubeJson[] }
    return items
  }

  async apply(yaml: string): Promise<string> {
    return await this.ok(['apply', '-f', '-'], yaml)
  }

  /** `value` null takes the annotation away. `what` is like `namespace/shop` or `pod/x -n shop`. */
  async annotate(what: string, name: string, value: string | null): Promise<void> {
    await this.ok([
      'annotate',
      '--overwrite',
      ...what.split(' '),
      value === null ? `${name}-` : `${name}=${value}`,
    ])
  }

  /** Runs a program in a pod to its end. */
  exec(pod: PodName, argv: readonly string[], input?: string): Promise<Ran> {
    const flags = input === undefined ? [] : ['-i']
    return this.run(['exec', ...flags, ...podFlags(pod), '--', ...argv], input)
  }

  /** A program in a pod that goes on until its standard input ends. */
  spawnIn(pod: PodName, argv: readonly string[]): ChildProcess {
    const args = ['exec', '-i', ...podFlags(pod), '--', ...argv]
    const child = spawn('kubectl', args, { stdio: ['pipe', 'pipe', 'inherit'], env: this.#env })
    child.stdin.on('error', () => undefined) // it may end by itself
    this.#running.add(child)
    child.once('close', () => this.#running.delete(child))
    return child
  }

  /** Lets go of every program in a pod that still runs: of a step that failed. */
  endAll(): void {
    for (const child of this.#running) child.stdin?.end()
  }

  /** What a pod has written so far. */
  async logs(pod: PodName, ...flags: readonly string[]): Promise<string> {
    return await this.ok(['logs', ...podFlags(pod), ...flags])
  }
}

function podFlags(pod: PodName): string[] {
  const [namespace = '', name = ''] = pod.split('/')
  return ['-n', namespace, name]
}
