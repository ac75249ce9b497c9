import { create, fromBinary, toBinary, toJson } from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import t from 'tap'
import { ResourceSet } from '../../../ca-server/discovery/resource-set.ts'
import { encodeResponse, spelledOut } from '../../../ca-server/discovery/wire.ts'
import { DeltaDiscoveryResponseSchema } from '../../../lib/proto/gen/envoy/discovery_pb.js'

const TYPE = 'type.googleapis.com/culvert.v1.Node'

await t.test('what is written by hand reads like what the library writes', t => {
  const text = fc.string({ unit: 'grapheme', maxLength: 200 })
  const bytes = fc.uint8Array({ maxLength: 300 })
  const contents = fc.uniqueArray(
    fc.record({ name: text, aliases: fc.array(text, { maxLength: 3 }), bytes }),
    {
      selector: ({ name }) => name,
      maxLength: 5,
    },
  )
  fc.assert(
    fc.property(contents, fc.array(text, { maxLength: 3 }), text, (contents, removed, nonce) => {
      const set = new ResourceSet(TYPE)
      for (const { name, ...content } of contents) set.put(name, content)
      const resources = contents.map(({ name }) => set.get(name)!)
      const head = { typeUrl: TYPE, nonce, systemVersionInfo: '7', removedResources: removed }
      const response = encodeResponse({ typeUrl: TYPE, nonce, revision: 7, resources, removed })
      const expected = create(DeltaDiscoveryResponseSchema, {
        ...head,
        resources: contents.map(({ name, aliases, bytes }, at) => ({
          name,
          version: resources[at]!.version,
          aliases,
          resource: { typeUrl: TYPE, value: bytes },
        })),
      })
      const wire = toBinary(DeltaDiscoveryResponseSchema, response)
      t.strictSame(fromBinary(DeltaDiscoveryResponseSchema, wire), expected)
      t.strictSame(spelledOut(response), expected)
    }),
  )
  t.end()
})

await t.test('lengths of one, two and three bytes', t => {
  for (const length of [0, 127, 128, 16_383, 16_384, 300_000]) {
    const set = new ResourceSet(TYPE)
    const bytes = new Uint8Array(length).map((_, at) => at)
    set.put('n', { bytes })
    const resources = [set.get('n')!]
    const response = spelledOut(
      encodeResponse({ typeUrl: TYPE, nonce: '', revision: 1, resources, removed: [] }),
    )
    t.ok(Buffer.from(bytes).equals(response.resources[0]!.resource!.value), `${length}`)
  }
  t.strictSame(
    toJson(
      DeltaDiscoveryResponseSchema,
      spelledOut(encodeResponse({ typeUrl: TYPE, nonce: '1', revision: 1, resources: [], removed: ['a'] })),
    ),
    { systemVersionInfo: '1', typeUrl: TYPE, nonce: '1', removedResources: ['a'] },
  )
  t.end()
})
