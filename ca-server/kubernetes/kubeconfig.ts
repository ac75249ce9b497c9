/**
 * Access by a kubeconfig, for a ca-server outside of the cluster. Reading one, running the programs that it names and
 * going through the proxy that it names is `@kubernetes/client-node`'s; only this file imports it, and only who has a
 * kubeconfig imports this file. A kubeconfig that gives up verifying the server is refused: what it says decides who
 * gets a certificate.
 */
import type { RequestOptions } from 'node:https'
import { delimiter } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { ApiAccess, Credentials } from './access.ts'

/** `paths`: one file or several, as in `KUBECONFIG`. Throws `CONFIG` when they name no usable cluster. */
export async function kubeconfigAccess(paths: string): Promise<ApiAccess> {
  const access = new KubeconfigAccess(paths)
  await access.credentials(false)
  return access
}

class KubeconfigAccess implements ApiAccess {
  readonly server: URL
  readonly #paths: string
  #config: KubeConfig

  constructor(paths: string) {
    this.#paths = paths
    this.#config = load(paths)
    this.server = serverOf(this.#config, paths)
  }

  async credentials(isFresh: boolean): Promise<Credentials> {
    // A program's answer is kept by the library until it ends, so one that was refused is only forgotten with all else.
    if (isFresh) this.#config = load(this.#paths)
    const options: RequestOptions = {}
    try {
      await this.#config.applyToHTTPSOptions(options)
    } catch (err) {
      throw unusable(this.#paths, err)
    }
    const { ca, cert, key, passphrase, pfx, servername, headers, auth, agent } = options
    return {
      tls: definite({ ca, cert, key, passphrase, pfx, servername }),
      headers: {
        ...(auth && { authorization: `Basic ${Buffer.from(auth).toString('base64')}` }),
        ...(headers as Record<string, string>),
      },
      ...(this.#config.getCurrentCluster()?.proxyUrl && typeof agent === 'object' && { agent }),
    }
  }
}

function load(paths: string): KubeConfig {
  const [first, ...others] = paths.split(delimiter).filter(path => path !== '')
  const config = new KubeConfig()
  try {
    config.loadFromFile(first ?? paths)
    for (const path of others) {
      const other = new KubeConfig()
      other.loadFromFile(path)
      config.mergeConfig(other, config.currentContext !== undefined)
    }
  } catch (err) {
    throw unusable(paths, err)
  }
  return config
}

function serverOf(config: KubeConfig, paths: string): URL {
  const cluster = config.getCurrentCluster()
  if (!cluster) throw unusable(paths, new Error('its current context names no cluster'))
  const server = URL.parse(cluster.server)
  if (server?.protocol !== 'https:' && server?.protocol !== 'http:')
    throw unusable(paths, new Error(`server '${cluster.server}' is not an http or https URL`))
  if (server.protocol === 'https:' && cluster.skipTLSVerify)
    throw new CulvertError('CONFIG', `kubeconfig ${paths} is not usable: it does not verify the API server`, {
      hint: 'give certificate-authority instead of insecure-skip-tls-verify',
    })
  return server
}

/** The parser quotes the lines around a mistake, and there are keys in this file: its first line is enough. */
function unusable(paths: string, err: unknown): CulvertError {
  const why = err instanceof Error && err.name === 'YAMLException' ? 'it is not YAML' : errorText(err)
  return new CulvertError('CONFIG', `kubeconfig ${paths} is not usable: ${why.split('\n')[0]}`)
}

function definite<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> }
}
