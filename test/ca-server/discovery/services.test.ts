import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import t from 'tap'
import { ipFromBytes } from '../../../lib/address.ts'
import { appNameOf } from '../../../ca-server/discovery/app-labels.ts'
import { serviceResource } from '../../../ca-server/discovery/services.ts'
import type { KubeService, ObjectMeta } from '../../../lib/kube/objects.ts'
import { ServiceInfoSchema } from '../../../lib/proto/gen/culvert/v1/mesh_pb.js'
import {
  AddressSchema,
  AppProtocol,
  IPFamilies,
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  WorkloadType,
} from '../../../lib/proto/gen/istio/workload_pb.js'
import { kubePod, kubeService } from '../../helpers/kube-world.ts'

function serviceOf(spec: Partial<KubeService['spec']>) {
  const resource = serviceResource(kubeService('echo', spec), 'cluster.local')
  const { type } = resource ? fromBinary(AddressSchema, resource.bytes) : {}
  return type?.case === 'service' ? { ...type.value, aliases: resource!.aliases } : undefined
}

await t.test('ports, families and addresses are as the service says', t => {
  const port = { protocol: 'TCP', targetPort: 8080 }
  t.match(
    serviceOf({
      clusterIPs: ['10.97.0.1', 'FD97:0::1'],
      ipFamilies: ['IPv4', 'IPv6'],
      ports: [
        { ...port, port: 80, appProtocol: 'http' },
        { ...port, port: 81, targetPort: 'web', appProtocol: 'example.com/own' },
        { ...port, port: 53, protocol: 'UDP' },
      ],
    }),
    {
      aliases: ['/10.97.0.1', '/fd97::1'],
      ipFamilies: IPFamilies.DUAL,
      ports: [
        { servicePort: 80, targetPort: 8080, appProtocol: AppProtocol.HTTP11 },
        { servicePort: 81, targetPort: 0, appProtocol: AppProtocol.UNKNOWN },
      ],
    },
  )
  t.equal(serviceOf({})?.ports.length, 1)
  t.strictSame(serviceOf({ clusterIPs: ['None'] })?.aliases, [], 'a headless service has no address')
  t.equal(serviceOf({ type: 'ExternalName', clusterIPs: [] }), undefined)
  t.equal(serviceOf({ ipFamilies: ['IPv6'] })?.ipFamilies, IPFamilies.IPV6_ONLY)
  t.end()
})

await t.test('what Kubernetes says about near and unready endpoints is passed on', t => {
  t.equal(serviceOf({})?.loadBalancing, undefined)
  t.match(serviceOf({ publishNotReadyAddresses: true })?.loadBalancing, {
    healthPolicy: HealthPolicy.ALLOW_ALL,
  })
  t.match(serviceOf({ internalTrafficPolicy: 'Local' })?.loadBalancing, {
    mode: Mode.STRICT,
    routingPreference: [Scope.NODE],
  })
  for (const trafficDistribution of ['PreferClose', 'PreferSameZone'])
    t.match(serviceOf({ trafficDistribution })?.loadBalancing, {
      mode: Mode.FAILOVER,
      routingPreference: [Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE],
    })
  t.equal(
    serviceOf({ trafficDistribution: 'PreferSameNode' })?.loadBalancing?.routingPreference.at(-1),
    Scope.NODE,
  )
  t.end()
})

await t.test('what Kubernetes knows of a service besides is for our own agents', t => {
  const infoOf = (spec: Partial<KubeService['spec']>, loadBalancerIPs?: string[]) => {
    const plain = kubeService('echo', spec)
    const service = loadBalancerIPs ? { ...plain, status: { loadBalancerIPs } } : plain
    const resource = serviceResource(service, 'cluster.local')!
    const { type } = fromBinary(AddressSchema, resource.bytes)
    if (type.case !== 'service') throw new Error('not a service')
    const [extension] = type.value.extensions
    const info = extension && anyUnpack(extension.config!, ServiceInfoSchema)
    return info && { ...info, external: info.externalAddresses.map(ip => ipFromBytes(ip)), resource }
  }
  t.equal(infoOf({}), undefined)
  t.equal(infoOf({ sessionAffinity: 'None' }), undefined)
  t.match(infoOf({ sessionAffinity: 'ClientIP' }), { clientAffinity: true, external: [] })
  const port = { protocol: 'TCP', targetPort: 8080 }
  const outer = infoOf(
    {
      type: 'LoadBalancer',
      externalIPs: ['203.0.113.7'],
      ports: [
        { ...port, port: 80, nodePort: 30080 },
        { ...port, port: 53, nodePort: 30053, protocol: 'UDP' },
      ],
    },
    ['203.0.113.8', '203.0.113.7'],
  )
  t.match(outer, {
    clientAffinity: false,
    external: ['203.0.113.7', '203.0.113.8'],
    nodePorts: { 30080: 80 },
    resource: { aliases: ['/10.97.0.1', '/203.0.113.7', '/203.0.113.8'] },
  })
  t.strictSame(Object.keys(outer!.nodePorts), ['30080'])
  t.equal(
    infoOf({ loadBalancerSourceRanges: ['192.0.2.0/24'] }, ['203.0.113.8']),
    undefined,
    'a load balancer that sifts is not gone around',
  )
  t.end()
})

await t.test('an application is called after its labels, or after what owns its pods', t => {
  const named = (meta: Partial<ObjectMeta>) => {
    const { workloadName, workloadType, canonicalName, canonicalRevision } = appNameOf(
      kubePod('web-0', { meta }),
    )
    return [workloadName, workloadType, canonicalName, canonicalRevision]
  }
  const owner = (kind: string, name: string) => ({ ownerReferences: [{ kind, name, controller: true }] })
  const { DEPLOYMENT, JOB, CRONJOB, POD } = WorkloadType
  t.strictSame(named({}), ['web-0', POD, 'web-0', 'latest'])
  t.strictSame(named(owner('StatefulSet', 'web')), ['web', POD, 'web', 'latest'])
  t.strictSame(named(owner('ReplicaSet', 'web-6d4cf56db6')), ['web', DEPLOYMENT, 'web', 'latest'])
  t.strictSame(
    named({ ...owner('ReplicaSet', 'web-abc'), labels: { 'pod-template-hash': 'abc' } }).slice(0, 2),
    ['web', DEPLOYMENT],
  )
  t.strictSame(named(owner('ReplicaSet', 'web')).slice(0, 2), ['web', DEPLOYMENT])
  t.strictSame(named(owner('Job', 'dump-28391045')).slice(0, 2), ['dump', CRONJOB])
  t.strictSame(named(owner('Job', 'dump')).slice(0, 2), ['dump', JOB])
  t.strictSame(named({ labels: { app: 'a', 'app.kubernetes.io/name': 'b', version: 'v1' } }).slice(2), [
    'b',
    'v1',
  ])
  t.end()
})
