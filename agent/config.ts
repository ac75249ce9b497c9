/** The agent's settings, from the environment, as a DaemonSet gives them. */
import { availableParallelism, hostname } from 'node:os'
import { LOG_LEVELS, type LogLevel } from '../lib/log-level.ts'
import { Settings } from '../lib/settings.ts'
import { KUBELET_NAMES } from './kubelet-names.ts'
import type { PodSourceChoice } from './pods/source.ts'
import { PORT } from './ports.ts'
import { TUNNEL_HELP, tunnelConfigFrom, type TunnelConfig } from './tunnel-config.ts'

export interface AgentConfig {
  readonly nodeName: string
  readonly trustDomain: string
  readonly clusterId: string
  readonly network: string
  readonly xdsAddress: URL
  readonly caAddress: URL
  /** PEM files; read anew for each connection. */
  readonly xdsRootFile: string
  readonly caRootFile: string
  /** Read anew for each use. */
  readonly tokenFile: string
  readonly podSource: PodSourceChoice
  /** Names of processes that may be the kubelet; none: whoever calls a probe's port from the node is taken for it. */
  readonly kubeletNames: readonly string[]
  /** Opens the node's network namespace. */
  readonly nodeNetns: string
  /** Where holders of listening sockets are recorded. */
  readonly runDir: string
  readonly adminPort: number
  readonly adminSocket: string | undefined
  readonly metricsPort: number
  readonly readyPort: number
  readonly logLevel: LogLevel
  readonly threads: number
  /** Asked of the certificate service, seconds. */
  readonly certificateTtlSeconds: number
  /** Open connections may live this long after SIGTERM, ms. */
  readonly drainMs: number
  /** How long a connection to an unknown address inside the cluster is held, ms. */
  readonly unknownHoldMs: number
  /** Whether everything that discovery tells is held, or only what the node's pods talk to. */
  readonly discovery: 'full' | 'on-demand'
  /** The discovery server knows Culvert's own types; false opposite an istiod. */
  readonly culvertTypes: boolean
  readonly tunnel: TunnelConfig
}

/** Name, default and meaning of each setting, for `--help`. */
export const SETTINGS_HELP: readonly (readonly [name: string, fallback: string, meaning: string])[] = [
  ['NODE_NAME', 'the host name', 'this node, as Kubernetes names it'],
  ['TRUST_DOMAIN', 'cluster.local', 'of the identities of this mesh'],
  ['CLUSTER_ID', 'Kubernetes', 'name of the cluster in logs, metrics and requests'],
  ['XDS_ADDRESS', 'https://culvert-ca.culvert-system.svc:15012', 'discovery server'],
  ['CA_ADDRESS', 'the same', 'certificate service'],
  ['XDS_ROOT_CA', '/var/run/culvert/root/root-cert.pem', 'PEM file with the roots of the discovery server'],
  ['CA_ROOT_CA', 'the same', 'PEM file with the roots of the certificate service'],
  ['AUTH_TOKEN_FILE', '/var/run/secrets/tokens/culvert-token', 'projected service-account token'],
  [
    'POD_SOURCE',
    'auto',
    'who tells of the pods of this node: nri or nri:SOCKET (the container runtime), proc (their processes, found in /proc), auto (the first where it is there), static:FILE',
  ],
  [
    'KUBELET_PROCESSES',
    KUBELET_NAMES.join(),
    "processes that may be the kubelet, whose probes pass under strict; 'any': whatever calls from the node",
  ],
  ['NODE_NETNS', '/proc/1/ns/net', "opens the node's network namespace: that of its first process (hostPID)"],
  ['RUN_DIR', '/run/culvert', 'state that outlives a restart; no secrets'],
  ['ADMIN_PORT', '15000', 'admin interface, loopback only; 0 turns it off'],
  ['ADMIN_SOCKET', '', 'the same on a Unix socket'],
  ['METRICS_PORT', '15020', 'Prometheus'],
  ['READY_PORT', '15021', 'GET /healthz/ready'],
  ['LOG_LEVEL', 'info', LOG_LEVELS.join(', ')],
  ['THREADS', '1', 'data-plane threads; auto: one for every two processors, up to 8'],
  ['SECRET_TTL', '24h', 'lifetime asked for certificates'],
  ['TERMINATION_GRACE_PERIOD_SECONDS', '30', 'open connections may live until 5 s before this is over'],
  ['CONNECTION_TERMINATION_DEADLINE', '', 'how long exactly, instead'],
  ['DISCOVERY', 'full', 'on-demand: hold only what the pods of this node talk to; full: the whole mesh'],
  ['UNKNOWN_HOLD', '1s', 'wait for discovery when an address of the cluster is not known yet'],
  ['CULVERT_TYPES', 'true', "false when the discovery server is an istiod, which lacks Culvert's types"],
  ...TUNNEL_HELP,
]

/** Reads and checks everything. Throws one `CONFIG` error that names every problem. */
export function configFrom(env: Readonly<Record<string, string | undefined>>): AgentConfig {
  const settings = new Settings(env)
  const xdsAddress = settings.url('XDS_ADDRESS', 'https://culvert-ca.culvert-system.svc:15012')
  const xdsRootFile = settings.string('XDS_ROOT_CA', '/var/run/culvert/root/root-cert.pem')
  const graceMs = settings.integer('TERMINATION_GRACE_PERIOD_SECONDS', 30, 0, 86_400) * 1000
  const config: AgentConfig = {
    nodeName: settings.string('NODE_NAME', hostname()),
    trustDomain: settings.string('TRUST_DOMAIN', 'cluster.local'),
    clusterId: settings.string('CLUSTER_ID', 'Kubernetes'),
    network: env['NETWORK'] ?? '',
    xdsAddress,
    caAddress: settings.url('CA_ADDRESS', xdsAddress.href),
    xdsRootFile,
    caRootFile: settings.string('CA_ROOT_CA', xdsRootFile),
    tokenFile: settings.string('AUTH_TOKEN_FILE', '/var/run/secrets/tokens/culvert-token'),
    podSource: podSource(settings),
    kubeletNames: kubeletNames(settings),
    nodeNetns: settings.string('NODE_NETNS', '/proc/1/ns/net'),
    runDir: settings.string('RUN_DIR', '/run/culvert'),
    adminPort: settings.port('ADMIN_PORT', PORT.admin),
    adminSocket: settings.optional('ADMIN_SOCKET'),
    metricsPort: settings.port('METRICS_PORT', PORT.metrics),
    readyPort: settings.port('READY_PORT', PORT.ready),
    logLevel: settings.choice('LOG_LEVEL', LOG_LEVELS, 'info'),
    threads: threads(settings),
    certificateTtlSeconds: settings.durationMs('SECRET_TTL', 86_400_000) / 1000,
    // As the field does it: a little less than the time the kubelet gives.
    drainMs: settings.durationMs(
      'CONNECTION_TERMINATION_DEADLINE',
      Math.max(1000, graceMs - (graceMs > 10_000 ? 5000 : 1000)),
    ),
    unknownHoldMs: settings.durationMs('UNKNOWN_HOLD', 1000),
    discovery: settings.choice('DISCOVERY', ['full', 'on-demand'], 'full'),
    culvertTypes: settings.boolean('CULVERT_TYPES', true),
    tunnel: tunnelConfigFrom(settings),
  }
  for (const [name, url] of [
    ['XDS_ADDRESS', config.xdsAddress],
    ['CA_ADDRESS', config.caAddress],
  ] as const)
    if (url.protocol !== 'https:') settings.problems.push(`${name}: '${url.href}' is not https`)
  settings.check()
  return config
}

/** A thread costs 10 MB idle and can keep a processor busy; the pods of the node need some, too. */
function threads(settings: Settings): number {
  if (settings.optional('THREADS') !== 'auto') return settings.integer('THREADS', 1, 1, 64)
  return Math.min(8, Math.max(1, Math.floor(availableParallelism() / 2)))
}

function kubeletNames(settings: Settings): string[] {
  const text = settings.string('KUBELET_PROCESSES', KUBELET_NAMES.join())
  const names = text.split(',').map(name => name.trim())
  return text === 'any' ? [] : names.filter(name => name !== '')
}

/** containerd and CRI-O have it there unless they are told otherwise. */
const NRI_SOCKET = '/var/run/nri/nri.sock'

function podSource(settings: Settings): PodSourceChoice {
  const text = settings.string('POD_SOURCE', 'auto')
  const [kind = '', ...rest] = text.split(':')
  const path = rest.join(':')
  const hasPath = path.startsWith('/')
  if (kind === 'static' && path !== '') return { kind, file: path }
  if (kind === 'nri' && (rest.length === 0 || hasPath)) return { kind, socket: path || NRI_SOCKET }
  if (kind === 'auto' && rest.length === 0) return { kind, socket: NRI_SOCKET }
  if (kind !== 'proc' || rest.length > 0)
    settings.problems.push(`POD_SOURCE: '${text}' is none of auto, nri, nri:SOCKET, proc, static:FILE`)
  return { kind: 'proc' }
}
