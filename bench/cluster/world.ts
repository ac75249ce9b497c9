/** The pods of the cluster bench: the same pair in a namespace that is annotated and in one that never is. */
import { readFile } from 'node:fs/promises'
import { CulvertError } from '../../lib/errors.ts'
import { until } from '../../lab/demo/facts.ts'
import { observed, SYSTEM } from '../../test/cluster/agents.ts'
import { ipOf, nodeOf, type Eyes } from '../../test/cluster/eyes.ts'
import type { Kubectl, PodName } from '../../test/cluster/kubectl.ts'
import type { PodUsage } from './usage.ts'

export const ARMS = ['none', 'mesh'] as const
export type Arm = (typeof ARMS)[number]

export interface BenchWorld {
  readonly kubectl: Kubectl
  readonly eyes: Eyes
  readonly nodes: { readonly near: string; readonly far: string }
  readonly image: string
  readonly rounds: number
  readonly progress: (what: string) => void
}

/** The client's pod of an arm. */
export function clientOf(arm: Arm): PodName {
  return `bench-${arm}/client`
}

/** The address of the server's pod of an arm. */
export async function serverIp({ kubectl }: BenchWorld, arm: Arm): Promise<string> {
  return ipOf(await kubectl.get('pod', '-n', `bench-${arm}`, 'server'))
}

/** Creates what is missing of an arm's pair, and waits until both are ready. */
export async function startPair({ kubectl, nodes, image }: BenchWorld, arm: Arm): Promise<void> {
  const text = await readFile(new URL('world.yaml', import.meta.url), 'utf8')
  const namespace = `bench-${arm}`
  await kubectl.apply(
    text
      .replaceAll('${APP_IMAGE}', image)
      .replaceAll('${NODE_A}', nodes.near)
      .replaceAll('${NODE_B}', nodes.far)
      .replaceAll('${NAMESPACE}', namespace),
  )
  await kubectl.ok(['wait', '-n', namespace, '--for=condition=Ready', 'pod', '--all', '--timeout=120s'])
}

export async function startPairs(world: BenchWorld): Promise<void> {
  for (const arm of ARMS) await startPair(world, arm)
}

/** Waits until every pod of the annotated pair is observed as enrolled, or as nothing. */
export async function whenObserved({ kubectl }: BenchWorld, wanted: 'enrolled' | undefined): Promise<void> {
  await until(`bench-mesh ${wanted ?? 'outside the mesh'}`, 30_000, async () => {
    const pods = await kubectl.list('pods', '-n', 'bench-mesh')
    return pods.every(pod => observed(pod) === wanted) || undefined
  })
}

/** Runs a client of the bench in a pod, and gives the line of JSON that it prints. */
export async function runClient<T>(
  { kubectl }: BenchWorld,
  pod: PodName,
  argv: readonly string[],
): Promise<T> {
  const { code, stdout, stderr } = await kubectl.exec(pod, ['node', ...argv])
  const line = stdout.toString().trim().split('\n').at(-1) ?? ''
  if (code === 0 && line.startsWith('{')) return JSON.parse(line) as T
  throw new CulvertError('KUBERNETES', `${argv.join(' ')} in ${pod}: ${stderr.trim() || line}`)
}

/** What the agent of each node uses and holds: everything in its pod. */
export async function agentUsage(world: BenchWorld): Promise<PodUsage[]> {
  return await usageOf(world, 'app.kubernetes.io/name=culvert-agent')
}

/** The same for the ca-server's replicas. */
export async function controlUsage(world: BenchWorld): Promise<PodUsage[]> {
  return await usageOf(world, 'app.kubernetes.io/name=culvert-ca')
}

async function usageOf({ kubectl, eyes }: BenchWorld, selector: string): Promise<PodUsage[]> {
  const pods = await kubectl.list('pods', '-n', SYSTEM, '-l', selector)
  return await Promise.all(
    pods
      .filter(pod => !pod.metadata.deletionTimestamp)
      .map(async pod => {
        const { uid } = pod.metadata
        const node = nodeOf(pod)
        const ran = await eyes.onNode(node, ['node', 'bench/cluster/usage.ts', uid])
        const usage = (JSON.parse(ran.stdout.toString()) as Record<string, PodUsage>)[uid]
        if (usage && usage.processes.length > 0) return usage
        throw new CulvertError('KUBERNETES', `no process of ${pod.metadata.name} was found on ${node}`)
      }),
  )
}
