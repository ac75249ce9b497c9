/**
 * Random clusters whose parts have to do with each other: pods of two nodes, in the mesh or not, behind services or
 * not, coming and going; addresses that are given to others; endpoints that are no pods. And random objects beside
 * them, of which nothing fits.
 */
import * as fc from 'fast-check'
import type { KubeEndpointSlice, KubeNode, KubeObject, KubePod, KubeService } from '../../lib/kube/objects.ts'
import { kubeObjects } from './kube-arbitrary.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod, kubeService } from './kube-world.ts'

/** Addresses that pods may have: some in the nodes' ranges, some not, as cloud networks give them. */
export const POD_IPS: readonly string[] = [
  ...Array.from({ length: 6 }, (_, at) => `10.98.1.${10 + at}`),
  ...Array.from({ length: 4 }, (_, at) => `172.20.0.${10 + at}`),
]
export const VIPS: readonly string[] = ['10.97.0.1', '10.97.0.2', '10.97.0.3']
export const EXTERNAL_IPS: readonly string[] = ['203.0.113.1', '203.0.113.2']
export const NODE_IPS: Readonly<Record<string, string>> = { 'node-a': '10.99.0.1', 'node-b': '10.99.0.2' }

/** That pods have on their node, by their number; the second is also a service's on every node. */
const HOST_PORTS: readonly number[] = [8080, 30_080]
const NODE_PORT = 30_080

const nodes: KubeNode[] = Object.entries(NODE_IPS).map(([name, ip]) =>
  kubeNode(name, ip, {
    labels: { 'topology.kubernetes.io/region': 'r', 'topology.kubernetes.io/zone': `zone-${name}` },
  }),
)

const annotations = fc.record(
  {
    'culvert.dev/mesh': fc.constantFrom('enabled', 'disabled'),
    'culvert.dev/mtls': fc.constantFrom('permissive', 'strict'),
    'culvert.dev/mtls-outbound': fc.constantFrom('prefer', 'require'),
    'culvert.dev/exclude-outbound-ports': fc.constant('443'),
    'culvert.dev/exclude-outbound-cidrs': fc.constantFrom('172.20.0.0/16', '203.0.113.1/32'),
  },
  { requiredKeys: [], noNullPrototype: true },
)

const pod = fc
  .record({
    at: fc.nat(7),
    namespace: fc.constantFrom('shop', 'shop', 'legacy'),
    node: fc.constantFrom('node-a', 'node-a', 'node-b'),
    ip: fc.nat(POD_IPS.length - 1),
    generation: fc.nat(1),
    isTerminating: fc.integer({ min: 0, max: 3 }).map(of => of === 0),
    isOnHost: fc.integer({ min: 0, max: 5 }).map(of => of === 0),
    phase: fc.constantFrom<KubePod['status']['phase'][]>('Running', 'Running', 'Pending', 'Succeeded'),
    ready: fc.boolean(),
    annotations,
  })
  .map(({ at, namespace, node, ip, generation, isTerminating, isOnHost, phase, ready, annotations }) => {
    const made = kubePod(`p${at}`, {
      namespace,
      node,
      ips: [isOnHost ? NODE_IPS[node]! : POD_IPS[ip]!],
      uid: `uid-p${at}-${generation}`,
      hostNetwork: isOnHost,
      phase,
      ready,
      probePorts: [8080],
      meta: { annotations, ...(isTerminating && { deletionTimestamp: '2026-01-01T00:00:00Z' }) },
    })
    const hostPort = HOST_PORTS[at]
    if (hostPort === undefined) return made
    const [container] = made.spec.containers
    const ports = [{ containerPort: 8080, hostPort }]
    return { ...made, spec: { ...made.spec, containers: [{ ...container!, ports }] } }
  })

const service = fc
  .record({
    at: fc.nat(3),
    vips: fc.uniqueArray(fc.constantFrom(...VIPS), { maxLength: 2 }),
    near: fc.constantFrom<Partial<KubeService['spec']>[]>(
      {},
      {},
      { internalTrafficPolicy: 'Local' },
      { trafficDistribution: 'PreferClose' },
      { publishNotReadyAddresses: true },
      { externalIPs: [EXTERNAL_IPS[0]!], sessionAffinity: 'ClientIP' },
      { ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP', nodePort: NODE_PORT }] },
    ),
    members: fc.uniqueArray(
      fc.record({ at: fc.nat(7), isReady: fc.integer({ min: 0, max: 3 }).map(of => of > 0) }),
      {
        selector: ({ at }) => at,
        minLength: 2,
        maxLength: 6,
      },
    ),
    external: fc.option(fc.constantFrom(...EXTERNAL_IPS, NODE_IPS['node-b']!), { freq: 3 }),
  })
  .map(({ at, vips, near, members, external }): [KubeService, KubeEndpointSlice] => {
    const name = `s${at}`
    const endpoint = { ready: true, serving: true, terminating: false }
    return [
      kubeService(name, { clusterIPs: vips.length > 0 ? vips : ['None'], ...near }),
      {
        kind: 'EndpointSlice',
        metadata: { name: `${name}-v4`, namespace: 'shop', uid: `uid-slice-${name}` },
        addressType: 'IPv4',
        serviceName: name,
        endpoints: [
          ...members.map(({ at: pod, isReady }) => ({
            ...endpoint,
            addresses: [],
            ready: isReady,
            targetRef: { kind: 'Pod', name: `p${pod}`, namespace: 'shop' },
          })),
          ...(external === null ? [] : [{ ...endpoint, addresses: [external] }]),
        ],
        ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
      },
    ]
  })

/** A cluster in which an address belongs to one alone, or to one and to another that is on its way out. */
export const kubeClusters: fc.Arbitrary<KubeObject[]> = fc
  .record({
    pods: fc.uniqueArray(pod, { selector: each => each.metadata.name, minLength: 3, maxLength: 8 }),
    services: fc.uniqueArray(service, { selector: ([each]) => each.metadata.name, maxLength: 4 }),
    others: kubeObjects,
    isShopEnrolled: fc.boolean(),
  })
  .map(({ pods, services, others, isShopEnrolled }) =>
    withoutQuarrels([
      ...nodes,
      kubeNamespace('shop', isShopEnrolled ? ENROLLED : {}),
      kubeNamespace('legacy'),
      ...pods,
      ...services.flat(),
      ...others,
    ]),
  )

/** Every address of a cluster's objects. */
export function addressesIn(objects: readonly KubeObject[]): string[] {
  return objects.flatMap(object => {
    if (object.kind === 'Pod') return [...object.status.podIPs]
    if (object.kind === 'Service') return object.spec.clusterIPs.filter(ip => ip !== 'None')
    if (object.kind === 'EndpointSlice') return object.endpoints.flatMap(({ addresses }) => addresses)
    return []
  })
}

/** Takes addresses away from those who are not the first to have them: who would have them depends on who came last. */
function withoutQuarrels(objects: readonly KubeObject[]): KubeObject[] {
  const living = new Set<string>()
  const dying = new Set<string>()
  const names = new Set<string>()
  const isFirst = (ip: string, owners: Set<string>) =>
    Object.values(NODE_IPS).includes(ip) || (!owners.has(ip) && owners.add(ip).has(ip))
  return objects.flatMap((object): KubeObject[] => {
    const { kind, metadata } = object
    const key = `${kind} ${metadata.namespace}/${metadata.name}`
    if (names.has(key)) return []
    names.add(key)
    if (object.kind === 'Pod') {
      const owners = metadata.deletionTimestamp === undefined ? living : dying
      const podIPs = object.status.podIPs.filter(ip => isFirst(ip, owners))
      return [{ ...object, status: { ...object.status, podIPs } }]
    }
    if (object.kind !== 'EndpointSlice') return [object]
    const endpoints = object.endpoints.map(endpoint =>
      endpoint.targetRef?.kind === 'Pod'
        ? endpoint
        : { ...endpoint, addresses: endpoint.addresses.filter(ip => isFirst(ip, living)) },
    )
    return [{ ...object, endpoints }]
  })
}
