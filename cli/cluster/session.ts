/** What the verbs of a cluster have in common: which cluster, how long, and what an interrupt does. */
import { Option, type Command } from 'commander'
import { parseDurationMs } from '../../lib/settings.ts'
import { duration } from '../command.ts'
import type { KubeApi } from '../kubernetes/api.ts'

export const SYSTEM_NAMESPACE = 'culvert-system'
export const AGENT = 'culvert-agent'
export const CA_SERVER = 'culvert-ca'
export const AGENT_SELECTOR = `app.kubernetes.io/name=${AGENT}`
export const CA_SELECTOR = `app.kubernetes.io/name=${CA_SERVER}`

export interface ClusterOptions {
  readonly kubeconfig?: string
  readonly context?: string
}

/** `--kubeconfig` and `--context`, as kubectl has them. */
export function withCluster(command: Command): Command {
  return command
    .addOption(new Option('--kubeconfig <file>', 'instead of KUBECONFIG and ~/.kube/config'))
    .addOption(new Option('--context <name>', 'of the kubeconfig, instead of its current one'))
}

export function timeoutOption(fallback: string): Option {
  return new Option('--timeout <duration>', 'how long to wait').argParser(duration).default(fallback)
}

export function timeoutMs(text: string): number {
  return parseDurationMs(text)
}

export function outputOption(): Option {
  return new Option('-o, --output <format>', 'text or json').choices(['text', 'json']).default('text')
}

export interface Session {
  readonly api: KubeApi
  readonly signal: AbortSignal
}

/** Runs `work` with the cluster that was chosen. An interrupt aborts the signal, and what the work began it also ends. */
export async function inCluster<T>(
  options: ClusterOptions,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const [{ KubeApi }, { connectionTo }] = await Promise.all([
    import('../kubernetes/api.ts'),
    import('../kubernetes/connection.ts'),
  ])
  const interrupted = new AbortController()
  const interrupt = () => interrupted.abort(new Error('interrupted'))
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, interrupt)
  try {
    const { signal } = interrupted
    return await work({ api: new KubeApi(connectionTo(options), signal), signal })
  } finally {
    for (const name of signals) process.off(name, interrupt)
  }
}
