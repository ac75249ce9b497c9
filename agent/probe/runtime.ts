/** The container runtime and the CNI plugins of a node, as far as files and sockets tell of them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { errorText } from '../../lib/errors.ts'
import type { Finding } from '../../lib/finding.ts'

const NRI_SOCKET = '/var/run/nri/nri.sock'
/** Mounted from the node where `culvert check` starts this. */
const CNI_CONFIG = '/etc/cni/net.d'
const CONNECT_MS = 2000

/** Plugins of which it is known that they get in the way, or are another mesh's. */
const PLUGINS: Readonly<Record<string, Omit<Finding, 'id'>>> = {
  'istio-cni': {
    state: 'warn',
    text: "Istio's CNI plugin is configured: pods in its mesh are left alone",
    hint: 'do not enrol namespaces with istio-injection or istio.io/dataplane-mode labels',
  },
  'linkerd-cni': {
    state: 'warn',
    text: "Linkerd's CNI plugin is configured: pods in its mesh are left alone",
    hint: 'do not enrol namespaces with linkerd.io/inject',
  },
  'cilium-cni': {
    state: 'ok',
    text: 'Cilium: with its socket load balancer, connections to a Service are seen as connections to its endpoints',
  },
}

export async function checkRuntime(): Promise<Finding[]> {
  return [await nri(), ...cniPlugins()]
}

/** Connects and says nothing: what is not ttrpc makes some runtimes reserve memory for it. */
async function nri(): Promise<Finding> {
  const hint =
    'enable NRI in the container runtime (containerd 1.7: [plugins."io.containerd.nri.v1.nri"] disable = false; 2.x and CRI-O 1.26: on by default); ' +
    'without it pods are found a moment after they have started'
  if (!existsSync(NRI_SOCKET))
    return { id: 'nri', state: 'warn', text: `no NRI: ${NRI_SOCKET} is not there`, hint }
  try {
    await connectOnce(NRI_SOCKET)
    return { id: 'nri', state: 'ok', text: 'NRI: pods are captured before their first container starts' }
  } catch (err) {
    return { id: 'nri', state: 'warn', text: `NRI does not answer: ${errorText(err)}`, hint }
  }
}

function connectOnce(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, timeout: CONNECT_MS })
    socket.on('error', reject)
    socket.on('timeout', () => socket.destroy(new Error(`no answer in ${CONNECT_MS} ms`)))
    socket.on('connect', () => {
      socket.destroy()
      resolve()
    })
  })
}

function cniPlugins(): Finding[] {
  let files: string[]
  try {
    files = readdirSync(CNI_CONFIG).filter(name => /\.(conf|conflist|json)$/.test(name))
  } catch {
    return [] // not mounted, or none: the runtime's own networking
  }
  const types = new Set(files.flatMap(name => pluginTypes(readFileSync(join(CNI_CONFIG, name), 'utf8'))))
  const known = [...types].flatMap(type => (PLUGINS[type] ? [{ id: `cni/${type}`, ...PLUGINS[type] }] : []))
  return [
    { id: 'cni', state: 'ok', text: `CNI plugins: ${[...types].join(', ') || 'none configured'}` },
    ...known,
  ]
}

/** What a CNI configuration or list of them names; nothing of one that is malformed. */
export function pluginTypes(text: string): string[] {
  try {
    const { type, plugins } = JSON.parse(text) as { type?: unknown; plugins?: readonly { type?: unknown }[] }
    const types = [type, ...(Array.isArray(plugins) ? plugins.map(plugin => plugin?.type) : [])]
    return types.filter(found => typeof found === 'string' && /^[\w.-]{1,64}$/.test(found)).map(String)
  } catch {
    return []
  }
}
