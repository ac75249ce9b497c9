import * as fc from 'fast-check'
import t from 'tap'
import { differingEndpoints, type SliceEndpoint } from '../../../ca-server/discovery/endpoints.ts'
import type { KubeEndpointSlice } from '../../../lib/kube/objects.ts'
import { kubePod, kubeSlice } from '../../helpers/kube-world.ts'

const slice = kubeSlice(
  'echo',
  ['a', 'b', 'c'].map(name => kubePod(name, { ips: [`10.0.0.${name.charCodeAt(0)}`] })),
)

function names(endpoints: readonly SliceEndpoint[]): (string | undefined)[] {
  return endpoints.map(({ targetRef }) => targetRef?.name)
}

await t.test('of a slice that changes, only the endpoints that do are looked at', t => {
  const [a, b, c] = slice.endpoints as [SliceEndpoint, SliceEndpoint, SliceEndpoint]
  const with_ = (...endpoints: SliceEndpoint[]): KubeEndpointSlice => ({ ...slice, endpoints })
  t.strictSame(names(differingEndpoints(slice, slice)), [])
  t.strictSame(names(differingEndpoints(slice, with_(c, { ...a }, b))), [], 'their order says nothing')
  t.strictSame(names(differingEndpoints(slice, with_(a, { ...b, ready: false }, c))), ['b', 'b'])
  t.strictSame(names(differingEndpoints(slice, with_(a, c))), ['b'])
  t.strictSame(names(differingEndpoints(with_(a), slice)), ['b', 'c'])
  t.strictSame(names(differingEndpoints(undefined, slice)), ['a', 'b', 'c'])
  t.strictSame(names(differingEndpoints(slice, undefined)), ['a', 'b', 'c'])
  const ports = [{ name: 'http', port: 9, protocol: 'TCP' }]
  t.equal(differingEndpoints(slice, { ...slice, ports }).length, 6, 'with its ports, all change')
  t.equal(differingEndpoints(slice, { ...slice, serviceName: 'other' }).length, 6)
  t.end()
})

await t.test('what is not named is in both, the same', t => {
  const endpoints = fc.subarray(
    slice.endpoints.flatMap(endpoint => [endpoint, { ...endpoint, ready: false }]),
  )
  fc.assert(
    fc.property(endpoints, endpoints, (before, after) => {
      const named = differingEndpoints({ ...slice, endpoints: before }, { ...slice, endpoints: after })
      for (const endpoint of [...before, ...after])
        if (!named.includes(endpoint)) t.ok(before.includes(endpoint) && after.includes(endpoint))
    }),
  )
  t.end()
})
