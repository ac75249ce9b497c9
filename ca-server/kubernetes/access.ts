/**
 * Where the API server is and how to prove who we are: from the pod's own service account, or from a kubeconfig
 * file. Files are read again while the program runs: the kubelet renews the token every hour.
 * In a pod this takes three files and no library: importing `@kubernetes/client-node` costs 90 MB of memory that a
 * server at rest should not hold. Only a kubeconfig is left to it (kubeconfig.ts, loaded when there is one), and list
 * and watch are ours everywhere: the library's informer stops for ever when the server says 429.
 */
import { readFile } from 'node:fs/promises'
import type { Agent } from 'node:http'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import type { SecureContextOptions } from 'node:tls'
import { CulvertError } from '../../lib/errors.ts'

/** What a request is made with. */
export interface Credentials {
  readonly tls: Pick<SecureContextOptions, 'ca' | 'cert' | 'key' | 'passphrase' | 'pfx'> & {
    /** The name in the server's certificate, where it is not that of the URL. */
    readonly servername?: string
  }
  readonly headers: Readonly<Record<string, string>>
  /** What makes the connections, where they go through a proxy. */
  readonly agent?: Agent
}

export interface ApiAccess {
  readonly server: URL
  /** What is valid now. `isFresh`: read anew, what was read last has been refused. */
  credentials(isFresh: boolean): Promise<Credentials>
}

export interface AccessOptions {
  /** A kubeconfig file, or several separated by colons; without it, the pod's own service account. */
  readonly kubeconfig: string | undefined
  /** Of the API server, as the kubelet tells a pod: name or address. */
  readonly host: string | undefined
  readonly port: number
  /** Where the kubelet puts `token` and `ca.crt`. */
  readonly accountDirectory: string
}

const REREAD_AFTER_MS = 60_000

/** Throws `CONFIG` when there is no cluster to be found, or not enough to reach it with. */
export async function openAccess(options: AccessOptions): Promise<ApiAccess> {
  if (options.kubeconfig === undefined) return inCluster(options)
  const { kubeconfigAccess } = await import('./kubeconfig.ts')
  return kubeconfigAccess(options.kubeconfig)
}

async function inCluster({ host, port, accountDirectory }: AccessOptions): Promise<ApiAccess> {
  if (host === undefined)
    throw new CulvertError('CONFIG', 'not in a pod of a cluster: KUBERNETES_SERVICE_HOST is not set', {
      hint: 'set KUBECONFIG to reach a cluster from outside',
    })
  const server = URL.parse(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`)
  if (!server) throw new CulvertError('CONFIG', `KUBERNETES_SERVICE_HOST: '${host}' is no name or address`)
  const access = new AccountAccess(server, accountDirectory)
  await access.credentials(true)
  return access
}

/** The pod's service account. A file that cannot be read again changes nothing: what was read stays. */
class AccountAccess implements ApiAccess {
  readonly server: URL
  readonly #directory: string
  readonly #texts = new Map<string, string>()
  #credentials: Promise<Credentials> | undefined
  #readAtMs = -Infinity

  constructor(server: URL, directory: string) {
    this.server = server
    this.#directory = directory
  }

  credentials(isFresh: boolean): Promise<Credentials> {
    const nowMs = performance.now()
    if (!this.#credentials || isFresh || nowMs - this.#readAtMs > REREAD_AFTER_MS) {
      this.#readAtMs = nowMs
      this.#credentials = this.#read()
    }
    return this.#credentials
  }

  async #read(): Promise<Credentials> {
    const [ca, token] = await Promise.all([this.#text('ca.crt'), this.#text('token')])
    return { tls: { ca }, headers: { authorization: `Bearer ${token}` } }
  }

  async #text(name: string): Promise<string> {
    const path = join(this.#directory, name)
    try {
      const text = (await readFile(path, 'utf8')).trim()
      if (text === '') throw new CulvertError('INPUT', `${path} is empty`)
      this.#texts.set(name, text)
      return text
    } catch (err) {
      const earlier = this.#texts.get(name)
      if (earlier !== undefined) return earlier
      throw new CulvertError('CONFIG', "the pod's service account cannot be read", { cause: err })
    }
  }
}
