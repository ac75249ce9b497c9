/**
 * Objects as the API server sends them, made ready for reading: without what costs memory and is not used (labels and
 * annotations of others, commands, environments), and without what the API server takes although it means nothing,
 * such as a probe of a port that its container does not have. A pod has 5 to 20 KB, of which some 300 bytes are kept.
 */
import { SERVICE_NAME_LABEL } from '../../lib/kube/read.ts'
import type { KubeKind } from '../../lib/kube/objects.ts'
import { APP_LABELS } from '../discovery/app-labels.ts'
import { LOCALITY_LABELS } from '../discovery/workloads.ts'

type Raw = Readonly<Record<string, unknown>>

/** What other meshes are recognised by, beside what begins with `linkerd.io/` or `config.linkerd.io/`. */
const FOREIGN_MESH = [
  'ambient.istio.io/redirection',
  'istio-injection',
  'istio.io/dataplane-mode',
  'istio.io/rev',
  'sidecar.istio.io/inject',
  'sidecar.istio.io/status',
]
const PREFIXES = ['culvert.dev/', 'linkerd.io/', 'config.linkerd.io/']
const KEPT = new Set([...FOREIGN_MESH, ...APP_LABELS, ...LOCALITY_LABELS, SERVICE_NAME_LABEL])

/** What of the object is to be read; anything that is no object becomes an empty one. */
export function slim(kind: KubeKind, object: unknown): Raw {
  const raw = mapping(object)
  const metadata = slimMeta(mapping(raw['metadata']))
  if (kind !== 'Pod') return { ...raw, metadata }
  return { metadata, spec: slimPodSpec(mapping(raw['spec'])), status: slimPodStatus(mapping(raw['status'])) }
}

function slimMeta(raw: Raw): Raw {
  const owners = mappings(raw['ownerReferences'])
  const owner = owners.find(({ controller }) => controller === true) ?? owners[0]
  return {
    name: raw['name'],
    namespace: raw['namespace'],
    uid: raw['uid'],
    deletionTimestamp: raw['deletionTimestamp'],
    labels: slimMap(raw['labels']),
    annotations: slimMap(raw['annotations']),
    ownerReferences: owner && [owner],
  }
}

/** Labels or annotations that somebody asks for; undefined when there are none. */
function slimMap(value: unknown): Raw | undefined {
  const kept = Object.entries(mapping(value)).filter(
    ([key]) => KEPT.has(key) || PREFIXES.some(prefix => key.startsWith(prefix)),
  )
  return kept.length > 0 ? Object.fromEntries(kept) : undefined
}

function slimPodSpec(raw: Raw): Raw {
  return {
    ...raw,
    terminationGracePeriodSeconds: undefined, // not used, and may be negative
    containers: mappings(raw['containers']).map(slimContainer),
    initContainers: mappings(raw['initContainers']).map(slimContainer),
  }
}

function slimContainer(raw: Raw): Raw {
  const ports = mappings(raw['ports'])
  const lifecycle = mapping(raw['lifecycle'])
  return {
    ...raw,
    image: undefined,
    command: undefined,
    args: undefined,
    env: undefined,
    readinessProbe: slimActions(raw['readinessProbe'], ports),
    livenessProbe: slimActions(raw['livenessProbe'], ports),
    startupProbe: slimActions(raw['startupProbe'], ports),
    lifecycle: {
      postStart: slimActions(lifecycle['postStart'], ports),
      preStop: slimActions(lifecycle['preStop'], ports),
    },
  }
}

/** Of a probe or a hook, without what goes to a port by a name that no port of the container has: the kubelet fails it. */
function slimActions(value: unknown, ports: readonly Raw[]): Raw {
  const actions = Object.entries(mapping(value)).filter(([, action]) => {
    const { port } = mapping(action)
    return typeof port !== 'string' || /^\d+$/.test(port) || ports.some(({ name }) => name === port)
  })
  return Object.fromEntries(actions)
}

function slimPodStatus(raw: Raw): Raw {
  const ips = raw['podIPs'] === undefined ? {} : { podIPs: mappings(raw['podIPs']).filter(({ ip }) => ip) }
  return { ...raw, ...ips, conditions: mappings(raw['conditions']).filter(({ type }) => type === 'Ready') }
}

function mapping(value: unknown): Raw {
  return typeof value === 'object' && value !== null ? (value as Raw) : {}
}

function mappings(value: unknown): Raw[] {
  return Array.isArray(value) ? value.map(mapping) : []
}
