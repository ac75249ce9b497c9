/**
 * Where the API server is and how to prove who we are: from the pod's own service account, or from a kubeconfig
 * file. Files are read again while the program runs: the kubelet renews the token every hour, and who gave us a
 * certificate may renew that.
 * Kubeconfigs that run programs, or that give up verifying the server, are refused.
 */
import { readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { dirname, resolve } from 'node:path'
import { parse } from 'yaml'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { Fields, strip } from '../../lib/kube/fields.ts'

/** What a connection is made with: PEM texts and a bearer token. */
export interface Credentials {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly token?: string
}

export interface ApiAccess {
  readonly server: URL
  /** The name in the server's certificate, where it is not that of the URL. */
  readonly serverName: string | undefined
  /** What is valid now. `isFresh`: read anew, what was read last has been refused. */
  credentials(isFresh: boolean): Promise<Credentials>
}

export interface AccessOptions {
  /** A kubeconfig file; without it, the pod's own service account. */
  readonly kubeconfig: string | undefined
  /** Of the process: tells a pod where the API server is. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Where the kubelet puts the service account. */
  readonly accountDirectory?: string
}

/** Where a PEM text or a token comes from. */
type Origin = { readonly text: string } | { readonly file: string }
type Origins = { readonly [K in keyof Credentials]: Origin }

const ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount'
const REREAD_AFTER_MS = 60_000

/** Throws `CONFIG` when there is no cluster to be found, or not enough to reach it with. */
export async function openAccess(options: AccessOptions): Promise<ApiAccess> {
  const access =
    options.kubeconfig === undefined ? inCluster(options) : await fromKubeconfig(options.kubeconfig)
  await access.credentials(true)
  return access
}

function inCluster({ env, accountDirectory = ACCOUNT_DIRECTORY }: AccessOptions): ApiAccess {
  const host = env['KUBERNETES_SERVICE_HOST']
  const port = env['KUBERNETES_SERVICE_PORT'] || '443'
  if (!host)
    throw new CulvertError('CONFIG', 'not in a pod of a cluster: KUBERNETES_SERVICE_HOST is not set', {
      hint: 'set KUBECONFIG to reach a cluster from outside',
    })
  const server = serverUrl(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`)
  if (!server)
    throw new CulvertError('CONFIG', `KUBERNETES_SERVICE_HOST and _PORT make no address: ${host} ${port}`)
  return new FileAccess(server, undefined, {
    ca: { file: `${accountDirectory}/ca.crt` },
    token: { file: `${accountDirectory}/token` },
  })
}

async function fromKubeconfig(file: string): Promise<ApiAccess> {
  let document: unknown
  try {
    document = parse(await readFile(file, 'utf8'), { logLevel: 'silent' })
  } catch (err) {
    // The parser quotes the lines around a mistake, and there are keys in this file.
    const why = err instanceof Error && 'linePos' in err ? 'it is not YAML' : errorText(err)
    throw new CulvertError('CONFIG', `kubeconfig ${file} cannot be read: ${why}`)
  }
  const problems: string[] = []
  const access = readKubeconfig(new Fields(document, '', problems), file)
  if (problems.length > 0) throw new CulvertError('CONFIG', `kubeconfig ${file}: ${problems.join('; ')}`)
  return access
}

function readKubeconfig(config: Fields, file: string): ApiAccess {
  const named = (list: string, item: string, name: string): Fields => {
    const found = config.items(list).find(entry => entry.get('name') === name)
    if (!found && name !== '') config.problem(list, `has no '${name}'`)
    return (found ?? new Fields({}, list, [])).child(item)
  }
  const context = named('contexts', 'context', config.requiredText('current-context'))
  const cluster = named('clusters', 'cluster', context.requiredText('cluster'))
  const user = named('users', 'user', context.text('user') ?? '')
  const server = serverUrl(cluster.requiredText('server'))
  if (!server) cluster.problem('server', 'is not an http or https URL')
  if (cluster.boolean('insecure-skip-tls-verify'))
    cluster.problem('insecure-skip-tls-verify', 'is not accepted: give certificate-authority')
  for (const key of ['exec', 'auth-provider', 'username', 'impersonate', 'as'])
    if (user.has(key)) user.problem(key, 'is not supported: use a token, tokenFile or client certificate')
  if (cluster.has('proxy-url')) cluster.problem('proxy-url', 'is not supported')

  const origin = (fields: Fields, name: string): Origin | undefined => {
    const data = fields.text(`${name}-data`)
    if (data !== undefined) return { text: Buffer.from(data, 'base64').toString() }
    const path = fields.text(name)
    return path === undefined ? undefined : { file: resolve(dirname(file), path) }
  }
  const token = user.text('token')
  const tokenFile = user.text('tokenFile')
  return new FileAccess(
    server ?? new URL('https://invalid'),
    cluster.text('tls-server-name'),
    strip<Origins>({
      ca: origin(cluster, 'certificate-authority'),
      cert: origin(user, 'client-certificate'),
      key: origin(user, 'client-key'),
      token:
        tokenFile === undefined
          ? token === undefined
            ? undefined
            : { text: token }
          : { file: resolve(dirname(file), tokenFile) },
    }),
  )
}

function serverUrl(text: string): URL | undefined {
  const url = URL.parse(text)
  return url?.protocol === 'https:' || url?.protocol === 'http:' ? url : undefined
}

/** Credentials of which some are files. A file that cannot be read again changes nothing: what was read stays. */
class FileAccess implements ApiAccess {
  readonly server: URL
  readonly serverName: string | undefined
  readonly #origins: Origins
  #read: Credentials | undefined
  #readAtMs = -Infinity

  constructor(server: URL, serverName: string | undefined, origins: Origins) {
    this.server = server
    this.serverName = serverName
    this.#origins = origins
  }

  async credentials(isFresh: boolean): Promise<Credentials> {
    const nowMs = performance.now()
    if (this.#read && !isFresh && nowMs - this.#readAtMs < REREAD_AFTER_MS) return this.#read
    this.#readAtMs = nowMs
    const entries = Object.entries(this.#origins).map(async ([name, origin]) => [
      name,
      (await this.#textOf(name as keyof Credentials, origin)).trim(),
    ])
    this.#read = Object.fromEntries(await Promise.all(entries)) as Credentials
    return this.#read
  }

  async #textOf(name: keyof Credentials, origin: Origin): Promise<string> {
    if ('text' in origin) return origin.text
    try {
      const text = await readFile(origin.file, 'utf8')
      if (text.trim() !== '') return text
      throw new CulvertError('INPUT', `${origin.file} is empty`)
    } catch (err) {
      const earlier = this.#read?.[name]
      if (earlier !== undefined) return earlier
      throw new CulvertError('CONFIG', `the API server's ${name} cannot be read`, { cause: err })
    }
  }
}
