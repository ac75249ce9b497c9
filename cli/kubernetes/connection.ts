/**
 * Which cluster, and how to prove who we are: kubectl's own rules (KUBECONFIG, ~/.kube/config, the pod's service account),
 * as `@kubernetes/client-node` implements them. Loaded only by verbs that talk to a cluster.
 */
import type { RequestOptions } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'
import { CulvertError, errorText } from '../../lib/errors.ts'

export interface ClusterChoice {
  /** A file, instead of KUBECONFIG and ~/.kube/config. */
  readonly kubeconfig?: string
  readonly context?: string
}

export interface Connection {
  readonly server: URL
  /** As the kubeconfig calls it. */
  readonly context: string
  readonly config: KubeConfig
  /** What a request is made with: certificates, headers, agent. */
  options(): Promise<RequestOptions>
}

/** Throws `CONFIG` when there is no cluster to talk to. */
export function connectionTo({ kubeconfig, context }: ClusterChoice): Connection {
  const config = new KubeConfig()
  try {
    if (kubeconfig === undefined) config.loadFromDefault()
    else config.loadFromFile(kubeconfig)
    if (context !== undefined) {
      if (!config.getContextObject(context))
        throw new CulvertError('CONFIG', `the kubeconfig has no context '${context}'`, {
          hint: `it has ${
            config
              .getContexts()
              .map(({ name }) => name)
              .join(', ') || 'none'
          }`,
        })
      config.setCurrentContext(context)
    }
  } catch (err) {
    if (err instanceof CulvertError) throw err
    // The parser quotes the lines around a mistake, and there may be keys in them.
    throw new CulvertError('CONFIG', `the kubeconfig is not usable: ${errorText(err).split('\n')[0]}`, {
      hint: 'set KUBECONFIG or give --kubeconfig',
    })
  }
  const server = URL.parse(config.getCurrentCluster()?.server ?? '')
  if (server?.protocol !== 'https:' && server?.protocol !== 'http:')
    throw new CulvertError('CONFIG', 'the kubeconfig names no cluster', {
      hint: 'set KUBECONFIG or give --kubeconfig and --context',
    })
  return {
    server,
    context: config.getCurrentContext(),
    config,
    options: async () => {
      const options: RequestOptions = {}
      await config.applyToHTTPSOptions(options)
      return options
    },
  }
}
