/**
 * From the stripped types of `objects.ts` back to Kubernetes objects as the API has them: reading what was
 * written gives the same objects again.
 */
import { ANNOTATION } from '../enrolment.ts'
import { API_VERSIONS } from './read.ts'
import type { KubeEndpointSlice, KubeObject, KubePod, KubeService, ProbePort } from './objects.ts'

type Plain = Record<string, unknown>

/** A plain object with apiVersion, kind, metadata, spec and status where the kind has them. */
export function writeObject(object: KubeObject): Plain {
  const { uid, ...meta } = object.metadata
  const head: Plain = {
    apiVersion: API_VERSIONS[object.kind],
    kind: object.kind,
    metadata: uid === '' ? meta : { ...meta, uid },
  }
  switch (object.kind) {
    case 'Node':
      return { ...head, spec: { podCIDR: object.spec.podCIDRs[0], ...object.spec }, status: object.status }
    case 'Pod':
      return { ...head, metadata: podMeta(object), spec: podSpec(object), status: podStatus(object) }
    case 'Service':
      return { ...head, spec: serviceSpec(object), ...serviceStatus(object) }
    case 'EndpointSlice':
      return { ...head, ...endpointSliceBody(object) }
    default:
      return head
  }
}

function podMeta({ metadata, status }: KubePod): Plain {
  const { uid, ...meta } = metadata
  const own = status.mesh === undefined ? undefined : { [ANNOTATION.status]: status.mesh }
  return {
    ...meta,
    ...(uid !== '' && { uid }),
    ...(own && { annotations: { ...metadata.annotations, ...own } }),
  }
}

function podSpec(pod: KubePod): Plain {
  const { probePorts, containers, meshProxy, ...spec } = pod.spec
  const probes = [...probePorts]
  const withProbes = containers.map(container => ({ ...container, ...takeProbes(probes) }))
  // More ports than the containers have probes for came from sidecars, whose names are not kept.
  const sidecars: Plain[] =
    meshProxy === undefined || containers.some(({ name }) => name === meshProxy)
      ? []
      : [{ name: meshProxy, restartPolicy: 'Always', ...takeProbes(probes) }]
  while (probes.length > 0)
    sidecars.push({ name: `sidecar-${sidecars.length}`, restartPolicy: 'Always', ...takeProbes(probes) })
  return {
    ...spec,
    containers: withProbes,
    ...(sidecars.length > 0 ? { initContainers: sidecars } : {}),
  }
}

/** Up to three probes as a container's fields; what was used is taken off the list. */
function takeProbes(probes: ProbePort[]): Plain {
  const fields: Plain = {}
  for (const name of ['readinessProbe', 'livenessProbe', 'startupProbe']) {
    const probe = probes.shift()
    if (!probe) break
    const action = { http: 'httpGet', tcp: 'tcpSocket', grpc: 'grpc' }[probe.kind]
    fields[name] = { [action]: { port: probe.port } }
  }
  return fields
}

function podStatus({ status }: KubePod): Plain {
  return {
    phase: status.phase,
    ...(status.hostIP === undefined ? {} : { hostIP: status.hostIP, hostIPs: [{ ip: status.hostIP }] }),
    ...(status.podIPs.length > 0
      ? { podIP: status.podIPs[0], podIPs: status.podIPs.map(ip => ({ ip })) }
      : {}),
    conditions: [{ type: 'Ready', status: status.ready ? 'True' : 'False' }],
  }
}

function serviceSpec({ spec }: KubeService): Plain {
  const { clusterIPs, ...rest } = spec
  return clusterIPs.length > 0 ? { ...rest, clusterIP: clusterIPs[0], clusterIPs } : rest
}

function serviceStatus({ status }: KubeService): Plain {
  if (!status) return {}
  return { status: { loadBalancer: { ingress: status.loadBalancerIPs.map(ip => ({ ip, ipMode: 'VIP' })) } } }
}

function endpointSliceBody(slice: KubeEndpointSlice): Plain {
  return {
    addressType: slice.addressType,
    endpoints: slice.endpoints.map(({ ready, serving, terminating, hints, ...endpoint }) => ({
      ...endpoint,
      conditions: { ready, serving, terminating },
      ...(hints && {
        hints: {
          forZones: hints.forZones.map(name => ({ name })),
          forNodes: hints.forNodes.map(name => ({ name })),
        },
      }),
    })),
    ports: slice.ports,
  }
}
