/** The ca-server's settings, from the environment, as a Deployment gives them. */
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { LOG_LEVELS, type LogLevel } from '../lib/log-level.ts'
import { Settings } from '../lib/settings.ts'
import type { AuthoritySource } from './authority/authority.ts'
import { ENGINE_NAMES, type EngineName } from './authority/engine-name.ts'
import type { AccessOptions } from './kubernetes/access.ts'
import { LEASE, ROOT_CONFIG_MAP, ROOT_SECRET } from './kubernetes/names.ts'

export interface CaConfig {
  readonly listenPort: number
  /** Undefined: every address. */
  readonly listenAddress: string | undefined
  readonly metricsPort: number
  readonly dataDir: string
  /** Where the world comes from; undefined: from the cluster. */
  readonly worldFile: string | undefined
  /** The cluster; undefined with a world file. */
  readonly kubernetes: AccessOptions | undefined
  /** This replica's pod, and the namespace of what it keeps in the cluster. */
  readonly podName: string
  readonly podNamespace: string
  readonly trustDomain: string
  readonly clusterId: string
  readonly clusterDomain: string
  /** What tokens are verified with; undefined: the cluster is asked. */
  readonly tokenKeys: { readonly file: string; readonly issuer: string } | undefined
  readonly tokenAudience: string
  /** `namespace/service-account`. */
  readonly trustedNodeAccounts: ReadonlySet<string>
  readonly defaultTtlMs: number
  readonly maxTtlMs: number
  /** Certificates a second for each node; 0 is no limit. */
  readonly issuesPerSecond: number
  readonly issuesBurst: number
  readonly authority: AuthoritySource
  readonly rootOut: string | undefined
  readonly serverDnsNames: readonly string[]
  readonly serverIps: readonly string[]
  readonly tunnelWithoutReport: boolean
  /** An enrolled pod of which nobody says otherwise takes no plaintext. */
  readonly strictByDefault: boolean
  readonly engine: EngineName
  readonly logLevel: LogLevel
  readonly portFile: string | undefined
}

const ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Name, default and meaning of each setting, for `--help`. */
export const SETTINGS_HELP: readonly (readonly [name: string, fallback: string, meaning: string])[] = [
  ['KUBECONFIG', '', 'kubeconfig of the cluster to serve, when this does not run in one of its pods'],
  ['KUBERNETES_SERVICE_HOST', '', 'the API server, as the kubelet tells a pod'],
  ['KUBERNETES_SERVICE_PORT', '443', 'its port'],
  ['SERVICE_ACCOUNT_DIR', ACCOUNT_DIRECTORY, 'where the kubelet puts token and ca.crt'],
  ['POD_NAME', 'the host name', "of this replica's pod"],
  [
    'POD_NAMESPACE',
    'culvert-system',
    `where this keeps its root (Secret ${ROOT_SECRET}, unless it signs with an intermediate), publishes roots (ConfigMap ${ROOT_CONFIG_MAP}) and elects who leads (Lease ${LEASE})`,
  ],
  [
    'WORLD_FILE',
    '',
    'YAML file of Kubernetes objects, instead of a cluster (with the next two); followed, replace it atomically',
  ],
  [
    'JWKS_FILE',
    '',
    'public keys that the tokens of agents are signed with (JSON Web Key Set), instead of asking the cluster (TokenReview); followed',
  ],
  ['TOKEN_ISSUER', '', 'issuer that tokens must name, with JWKS_FILE'],
  ['TOKEN_AUDIENCE', 'culvert-ca', 'audience that tokens must be for'],
  [
    'TRUSTED_NODE_ACCOUNTS',
    'culvert-system/culvert-agent,culvert-system/ztunnel',
    'service accounts whose word counts for a whole node',
  ],
  [
    'DATA_DIR',
    '/var/lib/culvert-ca',
    'with WORLD_FILE: where the own root and what agents reported are kept',
  ],
  ['TRUST_DOMAIN', 'cluster.local', 'of every identity issued'],
  ['CLUSTER_ID', 'Kubernetes', 'name of the cluster in workloads'],
  ['CLUSTER_DOMAIN', 'cluster.local', 'of the names of services'],
  ['DEFAULT_TTL', '24h', 'lifetime of certificates when none is asked for'],
  ['MAX_TTL', '24h', 'longest lifetime'],
  ['ISSUES_PER_SECOND', '100', 'certificates a second for each node; 0 is no limit'],
  ['ISSUES_BURST', '500', 'certificates that a node may have at once after a quiet time'],
  ['INTERMEDIATE_KEY', '', 'PEM file: sign under an existing root instead of an own one (with the next two)'],
  ['INTERMEDIATE_CERT', '', 'PEM file: the certificate of that key first, then those up to the root'],
  ['ROOT_CERT', '', 'PEM file: the root, or several'],
  ['ROOT_OUT', '', 'file to write the roots to, for those who must trust this server'],
  ['SERVER_DNS_NAMES', '', 'more DNS names of this server, comma-separated'],
  ['SERVER_IPS', '127.0.0.1,::1', 'IP addresses of this server, comma-separated'],
  ['LISTEN_PORT', '15012', 'certificates, discovery, reports (TLS); 0 takes a free one'],
  ['LISTEN_ADDRESS', '', 'address to listen on instead of all'],
  ['METRICS_PORT', '15014', 'GET /metrics and /healthz/ready; 0 takes a free one'],
  ['PORT_FILE', '', 'file to write the ports to once they are open (JSON)'],
  [
    'TUNNEL_WITHOUT_REPORT',
    'false',
    'send peers through the tunnel as soon as a pod is meant to be enrolled, for agents that cannot report',
  ],
  [
    'DEFAULT_MTLS',
    'permissive',
    'what holds for enrolled pods where no annotation culvert.dev/mtls says it: permissive or strict',
  ],
  ['CRYPTO', 'peculiar', `WebCrypto implementation: ${ENGINE_NAMES.join(' or ')}`],
  ['LOG_LEVEL', 'info', LOG_LEVELS.join(', ')],
]

const ALWAYS_SERVED = ['localhost', 'culvert-ca.culvert-system.svc']

/** Reads and checks everything. Throws one `CONFIG` error that names every problem. */
export function configFrom(env: Readonly<Record<string, string | undefined>>): CaConfig {
  const settings = new Settings(env)
  const problem = (text: string) => settings.problems.push(text)
  const list = (name: string, fallback: string, fault: (item: string) => string | undefined): string[] => {
    const items = settings.string(name, fallback).split(',')
    const found = items.map(item => item.trim()).filter(item => item !== '')
    for (const item of found) {
      const what = fault(item)
      if (what) problem(`${name}: '${item}' is ${what}`)
    }
    return found
  }
  const dataDir = settings.string('DATA_DIR', '/var/lib/culvert-ca')
  const worldFile = settings.optional('WORLD_FILE')
  const config: CaConfig = {
    listenPort: settings.port('LISTEN_PORT', 15012),
    listenAddress: settings.optional('LISTEN_ADDRESS'),
    metricsPort: settings.port('METRICS_PORT', 15014),
    dataDir,
    worldFile,
    kubernetes: clusterFrom(settings, worldFile),
    podName: settings.string('POD_NAME', hostname()),
    podNamespace: settings.string('POD_NAMESPACE', 'culvert-system'),
    trustDomain: settings.string('TRUST_DOMAIN', 'cluster.local'),
    clusterId: settings.string('CLUSTER_ID', 'Kubernetes'),
    clusterDomain: settings.string('CLUSTER_DOMAIN', 'cluster.local'),
    tokenKeys: tokenKeysFrom(settings, worldFile),
    tokenAudience: settings.string('TOKEN_AUDIENCE', 'culvert-ca'),
    trustedNodeAccounts: new Set(
      list('TRUSTED_NODE_ACCOUNTS', 'culvert-system/culvert-agent,culvert-system/ztunnel', item =>
        /^[^/]+\/[^/]+$/.test(item) ? undefined : 'not namespace/service-account',
      ),
    ),
    defaultTtlMs: settings.durationMs('DEFAULT_TTL', 86_400_000),
    maxTtlMs: settings.durationMs('MAX_TTL', 86_400_000),
    issuesPerSecond: settings.integer('ISSUES_PER_SECOND', 100),
    issuesBurst: settings.integer('ISSUES_BURST', 500, 1),
    authority: authorityFrom(settings, dataDir),
    rootOut: settings.optional('ROOT_OUT'),
    serverDnsNames: [
      ...new Set([
        ...ALWAYS_SERVED,
        ...list('SERVER_DNS_NAMES', '', item =>
          DNS_NAME.test(item) && item.length <= 253 ? undefined : 'not a DNS name',
        ),
      ]),
    ],
    serverIps: list('SERVER_IPS', '127.0.0.1,::1', item => (isIP(item) ? undefined : 'not an IP address')),
    tunnelWithoutReport: settings.boolean('TUNNEL_WITHOUT_REPORT', false),
    strictByDefault: settings.choice('DEFAULT_MTLS', ['permissive', 'strict'], 'permissive') === 'strict',
    engine: settings.choice('CRYPTO', ENGINE_NAMES, 'peculiar'),
    logLevel: settings.choice('LOG_LEVEL', LOG_LEVELS, 'info'),
    portFile: settings.optional('PORT_FILE'),
  }
  if (!/^[a-z0-9._-]{1,255}$/.test(config.trustDomain))
    problem(
      `TRUST_DOMAIN: '${config.trustDomain}' is not a trust domain (lower-case letters, digits, dots, dashes)`,
    )
  if (config.maxTtlMs < 1000) problem('MAX_TTL is less than a second')
  if (config.defaultTtlMs < 1000 || config.defaultTtlMs > config.maxTtlMs)
    problem('DEFAULT_TTL is not between a second and MAX_TTL')
  settings.check()
  return config
}

const DNS_NAME = /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i

function clusterFrom(settings: Settings, worldFile: string | undefined): AccessOptions | undefined {
  const found: AccessOptions = {
    kubeconfig: settings.optional('KUBECONFIG'),
    host: settings.optional('KUBERNETES_SERVICE_HOST'),
    port: settings.port('KUBERNETES_SERVICE_PORT', 443),
    accountDirectory: settings.string('SERVICE_ACCOUNT_DIR', ACCOUNT_DIRECTORY),
  }
  if (worldFile !== undefined) return undefined
  if (found.kubeconfig === undefined && found.host === undefined)
    settings.problems.push(
      'there is no cluster to serve: KUBECONFIG or WORLD_FILE is needed outside of a pod',
    )
  return found
}

function tokenKeysFrom(settings: Settings, worldFile: string | undefined): CaConfig['tokenKeys'] {
  const file = settings.optional('JWKS_FILE')
  const issuer = settings.optional('TOKEN_ISSUER')
  if (file !== undefined && issuer !== undefined) return { file, issuer }
  if (file !== undefined || issuer !== undefined)
    settings.problems.push('JWKS_FILE and TOKEN_ISSUER are needed together')
  else if (worldFile !== undefined)
    settings.problems.push('JWKS_FILE and TOKEN_ISSUER are needed with WORLD_FILE')
  return undefined
}

function authorityFrom(settings: Settings, directory: string): AuthoritySource {
  const keyFile = settings.optional('INTERMEDIATE_KEY')
  const chainFile = settings.optional('INTERMEDIATE_CERT')
  const rootFile = settings.optional('ROOT_CERT')
  if (keyFile !== undefined && chainFile !== undefined && rootFile !== undefined)
    return { kind: 'intermediate', keyFile, chainFile, rootFile }
  if (keyFile !== undefined || chainFile !== undefined || rootFile !== undefined)
    settings.problems.push('INTERMEDIATE_KEY, INTERMEDIATE_CERT and ROOT_CERT are needed together')
  return { kind: 'own-root', directory }
}
