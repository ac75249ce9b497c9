/**
 * A short-lived pod of ours on every node, in a namespace that is made for it: runs one of the node's programs
 * (agent/probe) with the agent's own rights, and is gone afterwards, whatever happened, with everything around it.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import { parseNodeReport, type NodeReport } from '../../lib/finding.ts'
import type { KubeApi } from './api.ts'
import { troubleOf, type KubeObject, type Pod } from './objects.ts'

export interface NodePodsOptions {
  readonly nodes: readonly string[]
  readonly image: string
  readonly verb: 'check' | 'clean'
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** Told while waiting: how many are done. */
  readonly progress: (done: number, of: number) => void
}

export interface NodeOutcome {
  readonly node: string
  readonly report?: NodeReport
  /** Why there is none. */
  readonly problem?: string
}

const POLL_MS = 300
const CLEAN_UP_MS = 30_000

/** What each node's program said, in the order of the nodes. Throws when the pods cannot even be made. */
export async function onEveryNode(api: KubeApi, options: NodePodsOptions): Promise<NodeOutcome[]> {
  const namespace = `culvert-${options.verb}-${randomBytes(4).toString('hex')}`
  try {
    await api.create(namespaceOf(namespace))
    await withAccount(api, namespace, options.signal)
    await Promise.all(options.nodes.map((node, at) => api.create(podOf(namespace, node, at, options))))
    return await outcomes(api, namespace, options)
  } finally {
    // Its own time: an interrupt must not leave anything behind.
    await api
      .with(AbortSignal.timeout(CLEAN_UP_MS))
      .delete(`/api/v1/namespaces/${namespace}`)
      .catch((err: unknown) => {
        process.stderr.write(`culvert: namespace ${namespace} was left behind: ${errorText(err)}\n`)
      })
  }
}

/** Pods are refused before their namespace has its service account. */
async function withAccount(api: KubeApi, namespace: string, signal: AbortSignal): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/default`
  while (!(await api.get(path))) await sleep(100, undefined, { signal })
}

async function outcomes(api: KubeApi, namespace: string, options: NodePodsOptions): Promise<NodeOutcome[]> {
  const { nodes, timeoutMs, signal, progress } = options
  const done = new Map<string, NodeOutcome>()
  const deadline = performance.now() + timeoutMs
  while (done.size < nodes.length) {
    const pods = await api.list<Pod>(`/api/v1/namespaces/${namespace}/pods`)
    for (const pod of pods) {
      const node = pod.spec.nodeName ?? ''
      if (done.has(node)) continue
      const outcome = await outcomeOf(api, pod, node, performance.now() > deadline)
      if (outcome) done.set(node, outcome)
    }
    progress(done.size, nodes.length)
    if (done.size < nodes.length) await sleep(POLL_MS, undefined, { signal })
  }
  return nodes.map(node => done.get(node)!)
}

/** Undefined while it is still to come. */
async function outcomeOf(
  api: KubeApi,
  pod: Pod,
  node: string,
  isLate: boolean,
): Promise<NodeOutcome | undefined> {
  const { phase } = pod.status
  if (phase === 'Succeeded' || phase === 'Failed') {
    const { namespace, name } = pod.metadata
    const log = await api.text(`/api/v1/namespaces/${namespace}/pods/${name}/log`)
    try {
      if (phase === 'Succeeded') return { node, report: parseNodeReport(log) }
    } catch (err) {
      return { node, problem: errorText(err) }
    }
    return { node, problem: log.trim().split('\n').at(-1) || troubleOf(pod) || 'it failed and said nothing' }
  }
  const trouble = troubleOf(pod)
  if (trouble !== undefined && /ImagePull|InvalidImage|CreateContainer/.test(trouble))
    return { node, problem: trouble }
  return isLate ? { node, problem: trouble ?? 'the pod did not start in time' } : undefined
}

function namespaceOf(name: string): KubeObject {
  const level = 'pod-security.kubernetes.io/enforce'
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name,
      labels: { 'app.kubernetes.io/part-of': 'culvert', [level]: 'privileged' },
      annotations: { 'culvert.dev/mesh': 'disabled' },
    },
  }
}

function podOf(namespace: string, node: string, at: number, { image, verb }: NodePodsOptions): KubeObject {
  const directories = [
    { name: 'netns', path: '/var/run/netns', mountPropagation: 'HostToContainer' },
    { name: 'nri', path: '/var/run/nri' },
    { name: 'cni', path: '/etc/cni/net.d', readOnly: true },
    { name: 'run', path: '/run/culvert' },
  ]
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `node-${at}`, namespace, labels: { 'app.kubernetes.io/part-of': 'culvert' } },
    spec: {
      // Past the scheduler: a node that takes no new pods has agents and pods all the same.
      nodeName: node,
      tolerations: [{ operator: 'Exists' }],
      restartPolicy: 'Never',
      activeDeadlineSeconds: 300,
      terminationGracePeriodSeconds: 0,
      hostPID: true,
      automountServiceAccountToken: false,
      securityContext: { runAsUser: 0, runAsGroup: 0, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [
        {
          name: 'probe',
          image,
          imagePullPolicy: 'IfNotPresent',
          command: ['node', 'agent/probe/main.ts', verb],
          env: [{ name: 'NODE_NAME', value: node }],
          resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '512Mi' } },
          securityContext: {
            readOnlyRootFilesystem: true,
            appArmorProfile: { type: 'Unconfined' },
            seLinuxOptions: { type: 'spc_t' },
            // The agent's, each with its reason there: manifests/base/agent.yaml.
            capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE'] },
          },
          volumeMounts: directories.map(({ name, path, ...more }) => ({ name, mountPath: path, ...more })),
        },
      ],
      volumes: directories.map(({ name, path }) => ({ name, hostPath: { path, type: 'DirectoryOrCreate' } })),
    },
  }
}
