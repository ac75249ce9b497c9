import { deepStrictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { CulvertError } from '../../../lib/errors.ts'
import { keyOf, parseManifest, stringifyManifest } from '../../../lib/kube/manifest.ts'
import type { KubeObject, KubePod } from '../../../lib/kube/objects.ts'
import { kubeObjects } from '../../helpers/kube-arbitrary.ts'
import { codePoint } from '../../helpers/code-point.ts'

const POD = `
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop }
spec:
  containers:
    - name: app
      image: culvert.dev/lab-app
`

function problemsOf(text: string): string[] {
  try {
    parseManifest(text, 'lab.yaml')
  } catch (err) {
    if (err instanceof CulvertError && err.code === 'INPUT') return err.message.split('\n')
    throw err
  }
  return []
}

function onlyPod(text: string): KubePod {
  const [pod, ...rest] = parseManifest(text, 'lab.yaml')
  if (pod?.kind !== 'Pod' || rest.length > 0) throw new Error('not one pod')
  return pod
}

await t.test('what was written reads back as the same objects', async t => {
  const property = fc.property(kubeObjects, objects => {
    deepStrictEqual(parseManifest(stringifyManifest(objects), 'x'), objects)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 150 }))
})

await t.test('any text gives objects or one INPUT error, nothing else', async t => {
  const piece = fc.constantFrom(
    'kind: Pod',
    'apiVersion: v1',
    '---',
    'metadata:',
    '  name: x',
    'spec: [1]',
    '- &a [*a]',
    '\t',
    '}{',
    'items: [null]',
    'kind: List',
    '<<: *a',
    '__proto__: {a: 1}',
  )
  const text = fc.oneof(
    fc.string({ unit: codePoint() }),
    fc.array(piece).map(lines => lines.join('\n')),
  )
  const property = fc.property(text, input => problemsOf(input).every(line => line.startsWith('lab.yaml: ')))
  t.doesNotThrow(() => fc.assert(property))
})

await t.test('absent fields get the defaults of the API server', async t => {
  t.strictSame(onlyPod(POD), {
    kind: 'Pod',
    metadata: { name: 'client', namespace: 'shop', uid: '' },
    spec: {
      serviceAccountName: 'default',
      hostNetwork: false,
      containers: [{ name: 'app', image: 'culvert.dev/lab-app' }],
      probePorts: [],
    },
    status: { phase: 'Pending', podIPs: [], ready: false },
  })
  const [service, slice] = parseManifest(
    `
apiVersion: v1
kind: Service
metadata: { name: echo }
spec: { ports: [{ port: 80 }, { name: web, port: 81, targetPort: http }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, labels: { kubernetes.io/service-name: echo } }
addressType: IPv6
endpoints:
  - addresses: ['fd98:0:0::1']
  - { addresses: ['fd98::2'], conditions: { ready: false, terminating: true, serving: null } }
ports: [{ name: '', port: 8080 }, { name: every }]
`,
    'x',
  )
  t.match(service, {
    metadata: { namespace: 'default' },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [],
      ports: [
        { port: 80, targetPort: 80, protocol: 'TCP' },
        { name: 'web', port: 81, targetPort: 'http', protocol: 'TCP' },
      ],
      publishNotReadyAddresses: false,
    },
  })
  t.match(slice, {
    serviceName: 'echo',
    endpoints: [
      { addresses: ['fd98::1'], ready: true, serving: true, terminating: false },
      { addresses: ['fd98::2'], ready: false, serving: false, terminating: true },
    ],
    ports: [{ port: 8080, protocol: 'TCP' }],
  })
})

await t.test('probe ports come from every probe, named ports resolved, each once', async t => {
  const pod = onlyPod(`
apiVersion: v1
kind: Pod
metadata: { name: server }
spec:
  initContainers:
    - { name: sidecar, restartPolicy: Always, startupProbe: { httpGet: { port: 9000 } } }
  containers:
    - name: app
      ports: [{ name: http, containerPort: 8080 }]
      readinessProbe: { httpGet: { port: http, path: / } }
      livenessProbe: { httpGet: { port: 8080 } }
      startupProbe: { exec: { command: ['true'] } }
    - name: more
      readinessProbe: { grpc: { port: 9090 } }
      livenessProbe: { tcpSocket: { port: '7000' } }
      startupProbe: { httpGet: { host: example.com, port: 443 } }
`)
  t.strictSame(pod.spec.probePorts, [
    { port: 8080, kind: 'http' },
    { port: 9090, kind: 'grpc' },
    { port: 7000, kind: 'tcp' },
    { port: 9000, kind: 'http' },
  ])
  t.strictSame(
    problemsOf(
      `${POD}      ports: [{ name: web, containerPort: 80 }]\n      livenessProbe: { tcpSocket: { port: http } }`,
    ),
    [
      "lab.yaml: document 1 (Pod shop/client): spec.containers[0].livenessProbe.tcpSocket.port is 'http', and the container has no port of that name",
    ],
  )
})

await t.test('what the kubelet calls in the life of a container counts as a probe', async t => {
  const pod = onlyPod(`
apiVersion: v1
kind: Pod
metadata: { name: server }
spec:
  containers:
    - name: app
      ports: [{ name: admin, containerPort: 9000 }]
      lifecycle:
        postStart: { exec: { command: ['true'] } }
        preStop: { httpGet: { port: admin, path: /drain, host: '' } }
`)
  t.strictSame(pod.spec.probePorts, [{ port: 9000, kind: 'http' }])
})

await t.test("another mesh's container is noted, wherever it stands", async t => {
  const proxyOf = (spec: string) =>
    onlyPod(`${POD.slice(0, POD.indexOf('spec:'))}spec: ${spec}`).spec.meshProxy
  t.equal(proxyOf('{ containers: [{ name: app }, { name: istio-proxy }] }'), 'istio-proxy')
  t.equal(
    proxyOf(
      '{ containers: [{ name: app }], initContainers: [{ name: linkerd-proxy, restartPolicy: Always }] }',
    ),
    'linkerd-proxy',
  )
  t.equal(proxyOf('{ containers: [{ name: app }] }'), undefined)
})

await t.test('ways in from outside: what is unset or ends connections is left out', async t => {
  const [service, pod] = parseManifest(
    `
apiVersion: v1
kind: Service
metadata: { name: outer }
spec:
  type: LoadBalancer
  externalIPs: ['203.0.113.7']
  ports: [{ port: 80, nodePort: 30080 }, { name: b, port: 81, nodePort: 0 }]
status:
  loadBalancer:
    ingress: [{ ip: 203.0.113.8 }, { ip: 203.0.113.9, ipMode: Proxy }, { hostname: lb.example.com }]
---
apiVersion: v1
kind: Pod
metadata: { name: p }
spec: { containers: [{ name: a, ports: [{ containerPort: 80, hostPort: 0, hostIP: '' }] }] }
`,
    'x',
  )
  t.match(service, {
    spec: { externalIPs: ['203.0.113.7'], ports: [{ nodePort: 30080 }, { nodePort: undefined }] },
    status: { loadBalancerIPs: ['203.0.113.8'] },
  })
  t.match(pod, { spec: { containers: [{ ports: [{ hostPort: undefined, hostIP: undefined }] }] } })
})

await t.test('lists are flattened, and their items need not repeat the kind', async t => {
  const objects = parseManifest(
    `
apiVersion: v1
kind: List
items:
  - { apiVersion: v1, kind: Namespace, metadata: { name: shop } }
  - apiVersion: v1
    kind: NodeList
    items: [{ metadata: { name: node-a } }]
---
# an empty document is no object
`,
    'x',
  )
  t.strictSame(
    objects.map(object => keyOf(object)),
    ['Namespace shop', 'Node node-a'],
  )
})

await t.test('one error names every problem: file, document, object and field', async t => {
  t.strictSame(
    problemsOf(`
apiVersion: v1
kind: Namespace
metadata: { name: shop, namespace: shop, annotations: { culvert.dev/mtls-cut-open: true } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
---
apiVersion: v1
kind: Pod
metadata: { name: ../../etc, namespace: shop }
spec: { containers: [{ image: x, env: [{ name: A, value: 1 }], command: [1] }], hostNetwork: 'yes' }
status: { phase: Asleep, podIPs: [{ ip: 10.0.0 }] }
---
apiVersion: v1beta1
kind: Node
metadata: { name: node-a }
spec: { podCIDRs: [10.98.1.0/33] }
---
kind: Service
metadata: { name: echo }
spec: { ports: [{ port: 80000 }] }
---
- 1
---
apiVersion: v1
kind: PodList
items: [null]
`),
    [
      'document 1 (Namespace shop/shop): metadata.namespace is not allowed: this kind belongs to the whole cluster',
      'document 1 (Namespace shop/shop): metadata.annotations["culvert.dev/mtls-cut-open"] is true, not text: write it as "true"',
      "document 2 (Deployment web): kind is 'Deployment', which is not understood (Node, Namespace, ServiceAccount, Pod, Service, EndpointSlice are)",
      "document 3 (Pod shop/../../etc): metadata.name is '../../etc', not a legal name",
      "document 3 (Pod shop/../../etc): spec.hostNetwork is 'yes', neither true nor false",
      'document 3 (Pod shop/../../etc): spec.containers[0].name is required',
      'document 3 (Pod shop/../../etc): spec.containers[0].command[0] is 1, not text: write it as "1"',
      'document 3 (Pod shop/../../etc): spec.containers[0].env[0].value is 1, not text: write it as "1"',
      "document 3 (Pod shop/../../etc): status.phase is 'Asleep', not one of Pending, Running, Succeeded, Failed, Unknown",
      "document 3 (Pod shop/../../etc): status.podIPs[0].ip is not an IP address: '10.0.0'",
      "document 4 (Node node-a): apiVersion is 'v1beta1', but a Node is read as v1",
      "document 4 (Node node-a): spec.podCIDRs[0] is '10.98.1.0/33', not a CIDR",
      'document 5 (Service echo): apiVersion is required',
      'document 5 (Service echo): spec.ports[0].port is 80000, not a whole number from 1 to 65535',
      'document 6: the document is a list, not a mapping',
      'document 7, items[0] (Pod): metadata.name is required',
      'document 7, items[0] (Pod): spec.containers is required',
    ].map(line => `lab.yaml: ${line}`),
  )
})

await t.test('the same object twice is a problem', async t => {
  t.strictSame(problemsOf(`${POD}\n---\n${POD}`), [
    'lab.yaml: document 2 (Pod shop/client): is already in document 1',
  ])
})

await t.test('text that is not YAML is told with its line, and alias bombs are refused', async t => {
  t.match(problemsOf('a: 1\n---\nb: [\n'), [/^lab\.yaml: document 2: not YAML at line 4, column 1: /])
  const bomb = ['a0: &a0 [x, x]']
  for (let at = 1; at < 30; at++)
    bomb.push(
      `a${at}: &a${at} [${Array(10)
        .fill(`*a${at - 1}`)
        .join(', ')}]`,
    )
  t.match(problemsOf(bomb.join('\n')), [/^lab\.yaml: document 1: not YAML: excessive alias count/])
})

await t.test('a long list of problems is cut', async t => {
  const many = problemsOf(Array(50).fill('kind: Pod').join('\n---\n'))
  t.equal(many.length, 21)
  t.match(many.at(-1), /and \d+ more$/)
})

await t.test('a written pod has the shape that Kubernetes gives it', async t => {
  const pod: KubeObject = {
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'n', uid: 'u' },
    spec: {
      nodeName: 'node-a',
      serviceAccountName: 's',
      hostNetwork: false,
      containers: [{ name: 'c', command: ['sleep', 'infinity'] }],
      probePorts: [{ port: 8080, kind: 'http' }],
    },
    status: { phase: 'Running', podIPs: ['10.0.0.1', 'fd00::1'], hostIP: '10.1.0.1', ready: true },
  }
  t.matchOnly(stringifyManifest([pod]).split('\n').slice(0, -1), [
    'apiVersion: v1',
    'kind: Pod',
    'metadata:',
    '  name: p',
    '  namespace: n',
    '  uid: u',
    'spec:',
    '  nodeName: node-a',
    '  serviceAccountName: s',
    '  hostNetwork: false',
    '  containers:',
    '    - name: c',
    '      command:',
    '        - sleep',
    '        - infinity',
    '      readinessProbe:',
    '        httpGet:',
    '          port: 8080',
    'status:',
    '  phase: Running',
    '  hostIP: 10.1.0.1',
    '  hostIPs:',
    '    - ip: 10.1.0.1',
    '  podIP: 10.0.0.1',
    '  podIPs:',
    '    - ip: 10.0.0.1',
    '    - ip: fd00::1',
    '  conditions:',
    '    - type: Ready',
    '      status: "True"',
  ])
})
