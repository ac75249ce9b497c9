import { create, toBinary, type DescMessage } from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import t from 'tap'
import { decodeNamespace, decodeNode, decodeTrustBundle } from '../../../agent/mesh/decode-culvert.ts'
import { decodePolicy } from '../../../agent/mesh/decode-policy.ts'
import { AddressDecoder } from '../../../agent/mesh/decode-workload.ts'
import { Interner } from '../../../lib/interner.ts'
import { bytesFromIp } from '../../../lib/address.ts'
import { CulvertError } from '../../../lib/errors.ts'
import {
  NamespaceSchema,
  NodeSchema,
  TrustBundleSchema,
  type Readiness,
} from '../../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { AuthorizationSchema } from '../../../lib/proto/gen/istio/authorization_pb.js'
import {
  AddressSchema,
  LoadBalancing_Scope,
  TunnelProtocol,
} from '../../../lib/proto/gen/istio/workload_pb.js'
import {
  serviceBytes,
  serviceInit,
  serviceKey,
  uidOf,
  workloadBytes,
  workloadInit,
  type PodShape,
  type ServiceInit,
  type ServiceShape,
  type WorkloadInit,
} from '../../helpers/mesh-world.ts'

const decoder = new AddressDecoder({ network: '', trustDomain: 'example.org', enrolments: new Interner() })

function workload(more: WorkloadInit) {
  const bytes = workloadBytes(workloadInit({ name: 'a', ips: ['10.0.0.1'], more }))
  const record = decoder.decode(more.uid ?? uidOf('shop', 'a'), bytes)
  if (record.kind !== 'workload') throw new Error('not a workload')
  return record.workload
}

function service(more: ServiceInit) {
  const record = decoder.decode(serviceKey('shop', 'echo'), serviceBytes(serviceInit({ name: 'echo', more })))
  if (record.kind !== 'service') throw new Error('not a service')
  return record.service
}

await t.test('a malformed workload is refused, naming the field', async t => {
  const cases: [WorkloadInit, RegExp][] = [
    [{ addresses: [bytesFromIp('10.0.0.1'), Uint8Array.of(1)] }, /addresses\[1\]: .*not 1/],
    [{ serviceAccount: 'Not Legal' }, /no identity: .*Not Legal/],
    [{ serviceAccount: '' }, /no identity/],
    [{ name: '' }, /name and namespace/],
    [{ services: { nonsense: {} } }, /services: 'nonsense'/],
    [{ services: { 'a/b': { ports: [{ servicePort: 0, targetPort: 1 }] } } }, /services\[a\/b\]: 0 to 1/],
    [{ services: { 'a/b': { ports: [{ servicePort: 1, targetPort: 65536 }] } } }, /are not ports/],
    [
      {
        extensions: [{ name: 'culvert.dev/workload', config: { typeUrl: '', value: Uint8Array.of(0xff) } }],
      },
      /extension culvert\.dev\/workload/,
    ],
  ]
  for (const [more, message] of cases) t.throws(() => workload(more), { code: 'INPUT', message })
})

await t.test('a workload without a tunnel needs no identity', async t => {
  t.match(workload({ tunnelProtocol: TunnelProtocol.NONE, serviceAccount: '' }), {
    tunnelled: false,
    identity: undefined,
  })
})

await t.test('what a workload does not say has a default', async t => {
  t.match(workload({ trustDomain: '', clusterId: '', workloadName: '' }), {
    identity: 'spiffe://example.org/ns/shop/sa/a',
    cluster: '',
    workloadName: 'a',
    capacity: 1,
    healthy: true,
    details: undefined,
  })
})

await t.test('an address in the clothes of another family, or named twice, is one address', async t => {
  const mapped = bytesFromIp('::ffff:10.0.0.1')
  t.strictSame(workload({ addresses: [mapped, bytesFromIp('10.0.0.1')] }).ips, ['10.0.0.1'])
})

await t.test('what many workloads have in common is kept once', async t => {
  const services = { [serviceKey('shop', 'echo')]: { ports: [{ servicePort: 80, targetPort: 8080 }] } }
  const locality = { region: 'r', zone: 'z' }
  const [a, b] = [workload({ services, locality }), workload({ services, locality })]
  t.equal(a.memberships, b.memberships)
  t.equal(a.locality, b.locality)
})

await t.test('a malformed service is refused, naming the field', async t => {
  const cases: [ServiceInit, RegExp][] = [
    [{ addresses: [{ network: '', address: Uint8Array.of(1, 2) }] }, /addresses\[0\]/],
    [{ addresses: [{ network: '', address: bytesFromIp('10.0.0.0'), length: 40 }] }, /addresses\[0\]/],
    [{ ports: [{ servicePort: 70_000 }] }, /ports: 70000/],
    [{ name: '' }, /name, namespace and hostname/],
    [{ loadBalancing: { routingPreference: [LoadBalancing_Scope.UNSPECIFIED_SCOPE] } }, /no such scope: 0/],
  ]
  for (const [more, message] of cases) t.throws(() => service(more), { code: 'INPUT', message })
})

await t.test("what Culvert's own server adds is checked, and has defaults without it", async t => {
  const info = (more: PodShape['info']) => {
    const bytes = workloadBytes(workloadInit({ name: 'a', services: { 'a/b': { 80: 80 } }, info: more! }))
    const record = decoder.decode(uidOf('shop', 'a'), bytes)
    return record.kind === 'workload' ? record.workload : undefined
  }
  const [member] = info({
    endpoints: [{ service: 'a/b', readiness: 99 as Readiness, zones: ['z'] }],
  })!.memberships
  t.match(member, { readiness: 'not-ready', zones: ['z'], nodes: [] }, 'what is newer is not ready')
  t.match(info({})!, { isPod: true, memberships: [{ readiness: undefined }], details: { serving: false } })
  t.throws(() => info({ hostPorts: [{ hostPort: 0, containerPort: 80 }] }), { message: /0 is not a port/ })
  const hostIp = Uint8Array.of(1)
  t.throws(() => info({ hostPorts: [{ hostPort: 1, containerPort: 1, hostIp }] }), { code: 'INPUT' })

  const ofService = (more: ServiceShape['info']) => () =>
    decoder.decode(serviceKey('shop', 'echo'), serviceBytes(serviceInit({ name: 'echo', info: more! })))
  t.match(ofService({})(), { service: { clientAffinity: false, externalIps: [], nodePorts: new Map() } })
  t.throws(ofService({ nodePorts: { 70_000: 80 } }), { message: /70000 is not a port/ })
  t.throws(ofService({ externalAddresses: [hostIp] }), { message: /externalAddresses\[0\]/ })
})

await t.test('an Address that is neither, and one under another name, are refused', async t => {
  t.throws(() => decoder.decode('x', toBinary(AddressSchema, create(AddressSchema))), { code: 'INPUT' })
  t.throws(() => decoder.decode('x', workloadBytes(workloadInit({ name: 'a' }))), {
    message: /is not the resource's name/,
  })
})

await t.test("Culvert's own messages are checked too", async t => {
  const encode = (schema: DescMessage, init: object) => toBinary(schema, create(schema, init as never))
  const bundle = (roots: string[]) => encode(TrustBundleSchema, { trustDomain: 'a', roots })
  t.throws(() => decodeTrustBundle('a', bundle([])), { message: /without roots/ })
  t.throws(() => decodeTrustBundle('a', bundle(['nonsense'])), { message: /roots\[0\]/ })
  t.throws(() => decodeTrustBundle('b', bundle(['x'])), { message: /is not the resource's name/ })
  const node = encode(NodeSchema, { name: 'n', podCidrs: ['10.0.0.0/99'] })
  t.throws(() => decodeNode('n', node), { code: 'INPUT' })
  const namespace = (enrolment: object) => encode(NamespaceSchema, { name: 'n', enrolment })
  t.throws(() => decodeNamespace('n', namespace({ excludeInboundPorts: [0] })), {
    message: /0 is not a port/,
  })
  t.throws(() => decodeNamespace('n', namespace({ excludeOutboundCidrs: ['x'] })), {
    message: /not a CIDR: 'x'/,
  })
  t.strictSame(decodeNamespace('n', namespace({ mesh: true, excludeInboundPorts: [80] })).wishes, {
    mesh: true,
    excludeInboundPorts: [80],
    problems: [],
  })
})

await t.test('no bytes at all make anything but a record or a named refusal', async t => {
  const name = uidOf('shop', 'a')
  const decoders: ((bytes: Uint8Array) => unknown)[] = [
    bytes => decoder.decode(name, bytes),
    bytes => decodePolicy('a/b', bytes),
    bytes => decodeNamespace('a', bytes),
    bytes => decodeNode('a', bytes),
    bytes => decodeTrustBundle('a', bytes),
  ]
  const good = [
    workloadBytes(
      workloadInit({
        name: 'a',
        ips: ['10.0.0.1'],
        services: { 'a/b': { 80: 80 } },
        info: {
          endpoints: [{ service: 'a/b', zones: ['z'] }],
          hostPorts: [{ hostPort: 1, containerPort: 2 }],
        },
      }),
    ),
    serviceBytes(
      serviceInit({
        name: 'echo',
        vips: ['10.96.0.1'],
        ports: { 80: 80 },
        info: { nodePorts: { 30000: 80 } },
      }),
    ),
    toBinary(AuthorizationSchema, create(AuthorizationSchema, { name: 'b', namespace: 'a', rules: [{}] })),
  ]
  const bent = fc
    .tuple(fc.constantFrom(...good), fc.array(fc.tuple(fc.nat(500), fc.nat(255)), { maxLength: 4 }))
    .map(([bytes, edits]) => {
      const copy = Uint8Array.from(bytes)
      for (const [at, byte] of edits) copy[at % copy.length] = byte
      return copy
    })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), bent), bytes => {
      for (const decode of decoders)
        try {
          decode(bytes)
        } catch (err) {
          if (!(err instanceof CulvertError)) throw err
        }
    }),
    { numRuns: 2000 },
  )
  t.pass('no other exception')
})
