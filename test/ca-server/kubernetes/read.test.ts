import * as fc from 'fast-check'
import t from 'tap'
import { Compactor } from '../../../ca-server/kubernetes/compact.ts'
import { readApiObject } from '../../../ca-server/kubernetes/source.ts'
import type { KubeEndpointSlice, KubeKind, KubeObject, KubePod } from '../../../lib/kube/objects.ts'

function read<T extends KubeObject>(kind: T['kind'], raw: unknown): T {
  const problems: string[] = []
  const object = readApiObject(kind, raw, new Compactor(), problems)
  t.strictSame(problems, [], `${kind} is readable`)
  return object as T
}

// As Kubernetes 1.34 sends it, but for repetitions.
const POD = {
  metadata: {
    name: 'shop-7d4b9c6f5-x2x4z',
    generateName: 'shop-7d4b9c6f5-',
    namespace: 'shop',
    uid: '0c6bc1c8-3b8e-4f0a-9d4c-8a2f0b8f1a11',
    resourceVersion: '7351',
    generation: 1,
    creationTimestamp: '2026-01-01T00:00:00Z',
    deletionTimestamp: '2026-01-01T01:00:00Z',
    deletionGracePeriodSeconds: 30,
    labels: {
      app: 'shop',
      'pod-template-hash': '7d4b9c6f5',
      'topology.kubernetes.io/zone': 'a',
      team: 'not used',
      'istio.io/dataplane-mode': 'ambient',
    },
    annotations: {
      'culvert.dev/mtls': 'strict',
      'culvert.dev/status': 'enrolled',
      'kubectl.kubernetes.io/last-applied-configuration': '{"very":"long"}',
      'sidecar.istio.io/status': '{}',
      'linkerd.io/inject': 'enabled',
      'config.linkerd.io/proxy-version': '1',
    },
    ownerReferences: [
      { apiVersion: 'x/v1', kind: 'Other', name: 'other', uid: 'u' },
      {
        apiVersion: 'apps/v1',
        kind: 'ReplicaSet',
        name: 'shop-7d4b9c6f5',
        uid: 'u',
        controller: true,
        blockOwnerDeletion: true,
      },
    ],
    finalizers: ['x'],
    managedFields: [{ manager: 'kubelet', fieldsV1: { 'f:status': {} }, time: null }],
  },
  spec: {
    volumes: [{ name: 'kube-api-access-x', projected: { sources: [], defaultMode: 420 } }],
    initContainers: [
      { name: 'once', image: 'i', resources: {} },
      {
        name: 'sidecar',
        image: 'i',
        restartPolicy: 'Always',
        ports: [{ name: 'health', containerPort: 9001, protocol: 'TCP' }],
        startupProbe: { httpGet: { path: '/', port: 'health', scheme: 'HTTP' }, timeoutSeconds: 1 },
      },
    ],
    containers: [
      {
        name: 'shop',
        image: 'registry/shop:1',
        command: ['node'],
        env: [
          { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } },
          { name: 'PLAIN', value: 'x' },
        ],
        ports: [
          { name: 'http', containerPort: 8080, hostPort: 18080, protocol: 'TCP' },
          { containerPort: 8081, protocol: 'TCP' },
        ],
        resources: {},
        livenessProbe: { httpGet: { path: '/live', port: 'http', scheme: 'HTTPS' }, periodSeconds: 10 },
        readinessProbe: { grpc: { port: 8081, service: null }, failureThreshold: 3 },
        startupProbe: { tcpSocket: { port: '8082' } },
        lifecycle: {
          preStop: { httpGet: { path: '/drain', port: 8083 } },
          postStart: { httpGet: { port: 'no-such-port' } },
        },
        terminationMessagePath: '/dev/termination-log',
      },
      { name: 'exec', livenessProbe: { exec: { command: ['true'] } } },
      { name: 'elsewhere', livenessProbe: { httpGet: { host: '10.0.0.9', port: 80 } } },
      { name: 'wrong', livenessProbe: { httpGet: { port: 'no-such-port' } } },
    ],
    restartPolicy: 'Always',
    terminationGracePeriodSeconds: -1,
    dnsPolicy: 'ClusterFirst',
    serviceAccountName: 'shop',
    serviceAccount: 'shop',
    nodeName: 'node-a',
    securityContext: {},
    tolerations: [{ key: 'x', operator: 'Exists', tolerationSeconds: 300 }],
  },
  status: {
    phase: 'Running',
    conditions: [
      { type: 'PodReadyToStartContainers', status: 'True', lastProbeTime: null },
      { type: 'Ready', status: 'True', lastProbeTime: null, lastTransitionTime: '2026-01-01T00:00:00Z' },
    ],
    hostIP: '10.250.0.11',
    hostIPs: [{ ip: '10.250.0.11' }],
    podIP: '10.244.1.7',
    podIPs: [{ ip: '10.244.1.7' }, { ip: 'fd00:0:0::7' }],
    containerStatuses: [{ name: 'shop', state: { running: {} }, lastState: {} }],
    qosClass: 'BestEffort',
  },
}

await t.test('a pod of a real API server is read, and what is not used is not kept', t => {
  const pod = read<KubePod>('Pod', POD)
  t.strictSame(pod, {
    kind: 'Pod',
    metadata: {
      name: 'shop-7d4b9c6f5-x2x4z',
      namespace: 'shop',
      uid: '0c6bc1c8-3b8e-4f0a-9d4c-8a2f0b8f1a11',
      labels: {
        app: 'shop',
        'pod-template-hash': '7d4b9c6f5',
        'topology.kubernetes.io/zone': 'a',
        'istio.io/dataplane-mode': 'ambient',
      },
      annotations: {
        'culvert.dev/mtls': 'strict',
        'sidecar.istio.io/status': '{}',
        'linkerd.io/inject': 'enabled',
        'config.linkerd.io/proxy-version': '1',
      },
      deletionTimestamp: '2026-01-01T01:00:00Z',
      ownerReferences: [{ kind: 'ReplicaSet', name: 'shop-7d4b9c6f5', controller: true }],
    },
    spec: {
      nodeName: 'node-a',
      serviceAccountName: 'shop',
      hostNetwork: false,
      containers: [
        {
          name: 'shop',
          ports: [
            { name: 'http', containerPort: 8080, hostPort: 18080, protocol: 'TCP' },
            { containerPort: 8081, protocol: 'TCP' },
          ],
        },
        { name: 'exec' },
        { name: 'elsewhere' },
        { name: 'wrong' },
      ],
      probePorts: [
        { port: 8081, kind: 'grpc' },
        { port: 8080, kind: 'http' },
        { port: 8082, kind: 'tcp' },
        { port: 8083, kind: 'http' },
        { port: 9001, kind: 'http' },
      ],
    },
    status: {
      phase: 'Running',
      podIPs: ['10.244.1.7', 'fd00::7'],
      hostIP: '10.250.0.11',
      ready: true,
      mesh: 'enrolled',
    },
  })
  t.end()
})

await t.test('pods that are not scheduled, have ended, or use the host network are read', t => {
  const { podIP: _, podIPs: __, hostIP: ___, ...bare } = POD.status
  const { nodeName: ____, ...unscheduled } = POD.spec
  const status = { ...bare, phase: 'Pending', conditions: null }
  t.match(read<KubePod>('Pod', { ...POD, spec: unscheduled, status }), {
    spec: { nodeName: undefined },
    status: { podIPs: [], ready: false, phase: 'Pending' },
  })
  for (const phase of ['Succeeded', 'Failed'])
    t.match(read<KubePod>('Pod', { ...POD, status: { ...POD.status, phase } }), {
      status: { phase, podIPs: ['10.244.1.7', 'fd00::7'] },
    })
  t.match(read<KubePod>('Pod', { ...POD, spec: { ...POD.spec, hostNetwork: true } }), {
    spec: { hostNetwork: true },
  })
  t.strictSame(
    read<KubePod>('Pod', { ...POD, status: { ...POD.status, podIP: '', podIPs: [{}] } }).status.podIPs,
    [],
  )
  t.end()
})

await t.test("a slice's nulls, and services of every kind", t => {
  const metadata = {
    name: 'echo-abcde',
    namespace: 'shop',
    uid: 'u',
    labels: {
      'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
      'kubernetes.io/service-name': 'echo',
    },
    annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-01T00:00:00Z' },
    ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: 'echo', uid: 'u', controller: true }],
  }
  t.match(read('EndpointSlice', { metadata, addressType: 'IPv4', endpoints: null, ports: null }), {
    serviceName: 'echo',
    endpoints: [],
    ports: [],
    metadata: { annotations: undefined },
  })
  const slice = read<KubeEndpointSlice>('EndpointSlice', {
    metadata,
    addressType: 'IPv6',
    endpoints: [
      {
        addresses: ['FD00::0007'],
        conditions: { ready: false, serving: true, terminating: true },
        hostname: 'web-0',
        deprecatedTopology: null,
        nodeName: 'node-a',
        zone: null,
        hints: { forZones: [{ name: 'a' }] },
        targetRef: { kind: 'Pod', namespace: 'shop', name: 'web-0', uid: 'p', resourceVersion: '1' },
      },
      { addresses: ['fd00::8'], conditions: {}, targetRef: null },
    ],
    ports: [
      { name: '', port: 80, protocol: 'TCP', appProtocol: null },
      { name: 'any', port: null, protocol: 'TCP' },
    ],
  })
  t.strictSame(slice.endpoints, [
    {
      addresses: ['fd00::7'],
      ready: false,
      serving: true,
      terminating: true,
      nodeName: 'node-a',
      hints: { forZones: ['a'], forNodes: [] },
      targetRef: { kind: 'Pod', name: 'web-0', namespace: 'shop', uid: 'p' },
    },
    { addresses: ['fd00::8'], ready: true, serving: true, terminating: false },
  ])
  t.strictSame(slice.ports, [{ port: 80, protocol: 'TCP' }])

  const service = (spec: object) =>
    read('Service', {
      metadata: { name: 'echo', namespace: 'shop', uid: 'u' },
      spec,
      status: { loadBalancer: {} },
    })
  t.match(
    service({
      clusterIP: 'None',
      clusterIPs: ['None'],
      selector: null,
      ports: null,
      type: 'ClusterIP',
      sessionAffinity: 'None',
    }),
    { spec: { clusterIPs: ['None'], ports: [] } },
  )
  t.match(
    service({
      clusterIP: '10.96.0.9',
      clusterIPs: ['10.96.0.9', 'fd00:1::9'],
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'PreferDualStack',
      internalTrafficPolicy: 'Local',
      ports: [{ name: 'dns', protocol: 'UDP', port: 53, targetPort: 'dns', nodePort: 30053 }],
      type: 'NodePort',
    }),
    { spec: { clusterIPs: ['10.96.0.9', 'fd00:1::9'], ports: [{ targetPort: 'dns', protocol: 'UDP' }] } },
  )
  t.match(service({ type: 'ExternalName', externalName: 'example.com', sessionAffinity: 'None' }), {
    spec: { type: 'ExternalName', externalName: 'example.com', clusterIPs: [] },
  })
  t.match(
    read('Node', {
      metadata: {
        name: 'node-a',
        uid: 'u',
        labels: { 'topology.kubernetes.io/zone': 'z', 'kubernetes.io/os': 'linux' },
      },
      spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'], providerID: 'x', taints: null },
      status: {
        addresses: [{ type: 'InternalIP', address: '10.250.0.11' }],
        capacity: { cpu: '2' },
        images: [],
        conditions: [],
      },
    }),
    { metadata: { labels: { 'topology.kubernetes.io/zone': 'z', 'kubernetes.io/os': undefined } } },
  )
  t.match(read('Namespace', { metadata: { name: 'shop', uid: 'u' }, spec: { finalizers: ['kubernetes'] } }), {
    metadata: { name: 'shop' },
  })
  t.end()
})

await t.test('what objects have in common is there once', t => {
  const compactor = new Compactor()
  const [one, two] = ['one', 'two'].map(name => {
    const raw: unknown = JSON.parse(JSON.stringify({ ...POD, metadata: { ...POD.metadata, name } }))
    return readApiObject('Pod', raw, compactor, []) as KubePod
  }) as [KubePod, KubePod]
  t.equal(one.metadata.labels, two.metadata.labels)
  t.equal(one.metadata.annotations, two.metadata.annotations)
  t.equal(one.metadata.ownerReferences, two.metadata.ownerReferences)
  t.equal(one.spec.containers, two.spec.containers)
  t.equal(one.spec.probePorts, two.spec.probePorts)
  t.not(one.status.podIPs, undefined)
  t.end()
})

await t.test('anything at all is read or refused, and nothing throws', t => {
  const kind = fc.constantFrom<KubeKind>('Node', 'Namespace', 'Pod', 'Service', 'EndpointSlice')
  const parts = fc.oneof(
    fc.constantFrom(
      ...Object.keys(POD),
      ...Object.keys(POD.metadata),
      ...Object.keys(POD.spec),
      ...Object.keys(POD.status),
      'endpoints',
      'ports',
      'addresses',
    ),
    fc.string(),
  )
  const { tree } = fc.letrec(tie => ({
    tree: fc.oneof(
      { depthSize: 'medium' },
      fc.jsonValue({ maxDepth: 1 }),
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(parts, tie('tree'), { maxKeys: 6 }),
    ),
  }))
  fc.assert(
    fc.property(
      kind,
      fc.oneof(tree, fc.record({ metadata: tree, spec: tree, status: tree })),
      (kind, raw) => {
        const problems: string[] = []
        readApiObject(kind, raw, new Compactor(), problems)
      },
    ),
    { numRuns: 2000 },
  )
  t.end()
})
