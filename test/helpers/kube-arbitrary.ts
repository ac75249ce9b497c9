/** Random Kubernetes objects of every kind, in the form that reading a file gives them. */
import * as fc from 'fast-check'
import { ipFromBytes } from '../../lib/address.ts'
import { keyOf } from '../../lib/kube/manifest.ts'
import type { KubeObject, ObjectMeta, ProbePort } from '../../lib/kube/objects.ts'

const name = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/)
const text = fc.string({ unit: 'grapheme', maxLength: 20 })
const port = fc.integer({ min: 1, max: 65535 })
const ip = fc
  .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map(bytes => ipFromBytes(bytes))
const textMap = fc.dictionary(
  text.filter(key => key !== '__proto__'),
  text,
  { maxKeys: 4, noNullPrototype: true },
)
const seconds = fc.nat(100_000)

/** A record whose fields may each be absent, but for the ones named. */
function some<T extends object, K extends keyof T>(
  model: { [P in keyof T]: fc.Arbitrary<T[P]> },
  required: K[],
) {
  return fc.record(model, { requiredKeys: required, noNullPrototype: true })
}

function meta(isNamespaced: boolean): fc.Arbitrary<ObjectMeta> {
  return some(
    {
      name,
      uid: fc.oneof(fc.constant(''), fc.uuid()),
      resourceVersion: text,
      labels: textMap,
      annotations: textMap,
      deletionTimestamp: fc.constant('2026-01-01T00:00:00Z'),
      deletionGracePeriodSeconds: seconds,
      ownerReferences: fc.array(some({ kind: name, name, controller: fc.boolean() }, ['kind', 'name']), {
        maxLength: 2,
      }),
      ...(isNamespaced ? { namespace: name } : {}),
    },
    isNamespaced ? ['name', 'uid', 'namespace' as 'name'] : ['name', 'uid'],
  )
}

const probePorts: fc.Arbitrary<ProbePort[]> = fc.uniqueArray(
  fc.record({ port, kind: fc.constantFrom('http', 'tcp', 'grpc') }, { noNullPrototype: true }),
  { selector: probe => `${probe.kind} ${probe.port}`, maxLength: 12 },
)

const container = some(
  {
    name,
    image: text,
    command: fc.array(text, { maxLength: 3 }),
    args: fc.array(text, { maxLength: 3 }),
    env: fc.array(some({ name, value: text }, ['name']), { maxLength: 2 }),
    ports: fc.array(
      some({ name, containerPort: port, protocol: name, hostPort: port, hostIP: ip }, ['containerPort']),
      { maxLength: 2 },
    ),
  },
  ['name'],
)

const pod = fc.record(
  {
    kind: fc.constant('Pod'),
    metadata: meta(true),
    spec: some(
      {
        nodeName: name,
        serviceAccountName: name,
        hostNetwork: fc.boolean(),
        terminationGracePeriodSeconds: seconds,
        containers: fc.array(container, { minLength: 1, maxLength: 3 }),
        probePorts,
        meshProxy: fc.constantFrom('istio-proxy', 'linkerd-proxy'),
      },
      ['serviceAccountName', 'hostNetwork', 'containers', 'probePorts'],
    ),
    status: some(
      {
        phase: fc.constantFrom('Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'),
        podIPs: fc.array(ip, { maxLength: 2 }),
        hostIP: ip,
        ready: fc.boolean(),
      },
      ['phase', 'podIPs', 'ready'],
    ),
  },
  { noNullPrototype: true },
)

const service = some(
  {
    kind: fc.constant('Service'),
    metadata: meta(true),
    spec: some(
      {
        type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'),
        clusterIPs: fc.array(fc.oneof(ip, fc.constant('None')), { maxLength: 2 }),
        selector: textMap,
        ports: fc.array(
          some(
            {
              name,
              port,
              targetPort: fc.oneof(port, name),
              protocol: name,
              appProtocol: text,
              nodePort: port,
            },
            ['port', 'targetPort', 'protocol'],
          ),
          { maxLength: 3 },
        ),
        publishNotReadyAddresses: fc.boolean(),
        sessionAffinity: text,
        externalIPs: fc.array(ip, { maxLength: 2 }),
        loadBalancerSourceRanges: fc.array(text, { maxLength: 2 }),
        internalTrafficPolicy: text,
        trafficDistribution: text,
        ipFamilies: fc.array(text, { maxLength: 2 }),
        externalName: text,
      },
      ['type', 'clusterIPs', 'ports', 'publishNotReadyAddresses'],
    ),
    status: fc.record({ loadBalancerIPs: fc.array(ip, { maxLength: 2 }) }, { noNullPrototype: true }),
  },
  ['kind', 'metadata', 'spec'],
)

const endpoint = some(
  {
    addresses: fc.array(ip, { maxLength: 2 }),
    ready: fc.boolean(),
    serving: fc.boolean(),
    terminating: fc.boolean(),
    nodeName: name,
    zone: text,
    hints: fc.record(
      { forZones: fc.array(name, { maxLength: 2 }), forNodes: fc.array(name, { maxLength: 2 }) },
      { noNullPrototype: true },
    ),
    targetRef: some({ kind: name, name, namespace: name, uid: text }, ['kind', 'name']),
  },
  ['addresses', 'ready', 'serving', 'terminating'],
)

const endpointSlice = fc
  .record(
    {
      kind: fc.constant('EndpointSlice'),
      metadata: meta(true),
      addressType: fc.constantFrom('IPv4', 'IPv6', 'FQDN'),
      serviceName: name,
      endpoints: fc.array(endpoint, { maxLength: 3 }),
      ports: fc.array(some({ name, port, protocol: name }, ['port', 'protocol']), { maxLength: 3 }),
    },
    { noNullPrototype: true },
  )
  .map(slice => ({
    ...slice,
    metadata: {
      ...slice.metadata,
      labels: { ...slice.metadata.labels, 'kubernetes.io/service-name': slice.serviceName },
    },
  }))

const node = fc.record(
  {
    kind: fc.constant('Node'),
    metadata: meta(false),
    spec: fc.record(
      { podCIDRs: fc.array(fc.constantFrom('10.98.1.0/24', 'fd98:1::/64'), { maxLength: 2 }) },
      { noNullPrototype: true },
    ),
    status: fc.record(
      {
        addresses: fc.array(fc.record({ type: name, address: name }, { noNullPrototype: true }), {
          maxLength: 2,
        }),
      },
      { noNullPrototype: true },
    ),
  },
  { noNullPrototype: true },
)

const bare = (kind: string, isNamespaced: boolean) =>
  fc.record({ kind: fc.constant(kind), metadata: meta(isNamespaced) }, { noNullPrototype: true })

/** Up to six objects, no two of one kind and name. */
export const kubeObjects = fc.uniqueArray(
  fc.oneof(
    pod,
    service,
    endpointSlice,
    node,
    bare('Namespace', false),
    bare('ServiceAccount', true),
  ) as fc.Arbitrary<KubeObject>,
  { selector: keyOf, maxLength: 6 },
)
