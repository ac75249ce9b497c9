/** What agents are told of a pod's part in its services, from slices as Kubernetes or people write them. */
import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import t from 'tap'
import { externalWorkloads, podWorkload, type MeshSettings } from '../../../ca-server/discovery/workloads.ts'
import { World } from '../../../ca-server/world/world.ts'
import type { KubeEndpointSlice, KubeObject, KubePod } from '../../../lib/kube/objects.ts'
import { Readiness, WorkloadInfoSchema } from '../../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { AddressSchema, WorkloadStatus } from '../../../lib/proto/gen/istio/workload_pb.js'
import { kubePod, kubeService, kubeSlice, type EndpointShape } from '../../helpers/kube-world.ts'

const SETTINGS: MeshSettings = {
  clusterId: 'Kubernetes',
  clusterDomain: 'cluster.local',
  trustDomain: 'cluster.local',
  tunnelWithoutReport: false,
}
const ECHO = 'shop/echo.shop.svc.cluster.local'
const OTHER = 'shop/other.shop.svc.cluster.local'
const IP = '10.98.1.10'

const pod = kubePod('server', { ips: [IP] })
const going = kubePod('server', { ips: [IP], meta: { deletionTimestamp: '2026-01-01T00:00:00Z' } })

function worldOf(...objects: KubeObject[]): World {
  const world = new World()
  world.replaceAll(objects)
  return world
}

function told(of: KubePod, ...objects: KubeObject[]) {
  const content = podWorkload(worldOf(of, ...objects), of, undefined, SETTINGS)
  const { type } = fromBinary(AddressSchema, content!.bytes)
  if (type.case !== 'workload') throw new Error('not a workload')
  const { status, services, extensions } = type.value
  const { serving, endpoints, hostPorts, terminating } = anyUnpack(
    extensions[0]!.config!,
    WorkloadInfoSchema,
  )!
  return { isReady: status === WorkloadStatus.HEALTHY, services, serving, endpoints, hostPorts, terminating }
}

/** A slice whose one endpoint is an address. */
function byAddress(service: string, ip: string, endpoint: EndpointShape = {}): KubeEndpointSlice {
  const only = { addresses: [ip], ready: true, serving: true, terminating: false, ...endpoint }
  return kubeSlice(service, [], {}, { endpoints: [only] })
}

await t.test('what holds for all services of a pod is said once', async t => {
  const services = [kubeService('echo'), kubeService('other')]
  const slices = [
    kubeSlice('echo', [pod]),
    kubeSlice('other', [pod], {}, { metadata: { ...meta('other-1') } }),
  ]
  t.match(told(pod, ...services, ...slices), { isReady: true, serving: true, endpoints: [] })
  const unready = { ready: false, serving: false }
  t.match(told(pod, kubeService('echo'), kubeSlice('echo', [pod], unready)), {
    isReady: false,
    serving: false,
    endpoints: [],
  })
  t.strictSame(
    told(kubePod('server', { ready: false, ips: [IP] })).isReady,
    false,
    'without slices its own word',
  )
})

await t.test('a service that sees it differently is named', async t => {
  const unready = { ready: false, serving: false }
  const told2 = told(
    pod,
    kubeService('echo'),
    kubeService('other'),
    kubeSlice('echo', [pod]),
    kubeSlice('other', [pod], unready, { metadata: meta('other-1') }),
  )
  t.match(told2, {
    isReady: false,
    serving: false,
    endpoints: [{ service: ECHO, readiness: Readiness.READY }],
  })
  const publishing = kubeService('other', { publishNotReadyAddresses: true })
  t.match(
    told(
      pod,
      kubeService('echo'),
      publishing,
      kubeSlice('echo', [pod], unready),
      kubeSlice('other', [pod], { ready: true, serving: false }, { metadata: meta('other-1') }),
    ),
    { isReady: false, endpoints: [] },
    'one that takes what is not ready says so itself',
  )
})

await t.test('a pod on its way out serves as long as its slices say so', async t => {
  const leaving = { ready: false, serving: true, terminating: true }
  t.match(told(going, kubeService('echo'), kubeSlice('echo', [going], leaving)), {
    isReady: false,
    serving: true,
    terminating: true,
    endpoints: [],
  })
  t.match(
    told(going, kubeService('echo'), kubeSlice('echo', [going])),
    { isReady: false, serving: true, endpoints: [] },
    'a slice that has not heard yet does not call it ready',
  )
  t.match(told(going, kubeService('echo'), kubeSlice('echo', [going], { ...leaving, serving: false })), {
    serving: false,
    endpoints: [],
  })
})

await t.test('hints are passed on, those of both families together', async t => {
  const both = kubePod('server', { ips: [IP, 'fd98::10'] })
  const hints = (forZones: string[], forNodes: string[]) => ({ hints: { forZones, forNodes } })
  const { endpoints } = told(
    both,
    kubeService('echo'),
    kubeSlice('echo', [both], hints(['z2', 'z1'], [])),
    kubeSlice('echo', [both], hints(['z1'], ['node-a']), { metadata: meta('echo-v6'), addressType: 'IPv6' }),
  )
  t.match(endpoints, [
    { service: ECHO, readiness: Readiness.READINESS_UNSPECIFIED, zones: ['z1', 'z2'], nodes: ['node-a'] },
  ])
})

await t.test('an endpoint that is an address is the pod that has it, and no workload of its own', async t => {
  const service = kubeService('echo')
  const slice = byAddress('echo', IP)
  t.match(told(pod, service, slice).services, { [ECHO]: { ports: [{ servicePort: 80, targetPort: 8080 }] } })
  const external = (...objects: KubeObject[]) => [
    ...externalWorkloads(worldOf(service, slice, ...objects), slice, () => false, SETTINGS).keys(),
  ]
  const name = `Kubernetes/discovery.k8s.io/EndpointSlice/shop/echo-v4/${IP}`
  t.strictSame(external(pod), [])
  t.strictSame(external(), [name])
  t.strictSame(external(kubePod('server', { ips: [IP], phase: 'Succeeded' })), [name], 'its pod has ended')
  t.strictSame(external(kubePod('daemon', { ips: [IP], hostNetwork: true })), [name], "a node's address")
})

await t.test('slices of other namespaces say nothing about the pod but what is theirs', async t => {
  const foreign: KubeEndpointSlice = {
    ...kubeSlice('echo', [pod], { ready: false, serving: false }),
    metadata: { ...meta('evil'), namespace: 'evil' },
  }
  const service = { ...kubeService('echo'), metadata: { name: 'echo', namespace: 'evil', uid: 'x' } }
  t.match(told(pod, kubeService('echo'), kubeSlice('echo', [pod]), service, foreign), {
    isReady: true,
    endpoints: [{ service: 'evil/echo.evil.svc.cluster.local', readiness: Readiness.NOT_READY }],
  })
  t.match(told(pod, kubeService('other'), byAddress('other', IP)).services, { [OTHER]: {} })
})

await t.test('TCP host ports are told, of pods that have a network of their own', async t => {
  const containers = [
    {
      name: 'app',
      ports: [
        { containerPort: 8080, hostPort: 80 },
        { containerPort: 8443, hostPort: 443, hostIP: '192.0.2.1' },
        { containerPort: 53, hostPort: 53, protocol: 'UDP' },
        { containerPort: 9090, hostPort: 90, hostIP: '0.0.0.0' },
        { containerPort: 9091 },
      ],
    },
  ]
  const withPorts = (more: KubePod): KubePod => ({ ...more, spec: { ...more.spec, containers } })
  t.match(
    told(withPorts(pod)).hostPorts.map(({ hostPort, containerPort, hostIp }) => [
      hostPort,
      containerPort,
      [...hostIp],
    ]),
    [
      [80, 8080, []],
      [443, 8443, [192, 0, 2, 1]],
      [90, 9090, []],
    ],
  )
  t.strictSame(told(withPorts(kubePod('server', { hostNetwork: true }))).hostPorts, [])
})

function meta(name: string): KubeEndpointSlice['metadata'] {
  return { name, namespace: 'shop', uid: `uid-${name}` }
}
