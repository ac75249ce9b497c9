import t from 'tap'
import { schemaFaults } from '../helpers/kube-schema.ts'
import { FILES, INSTALLS, objectsOf } from '../helpers/manifests.ts'

for (const file of FILES)
  await t.test(`${file}: each object is one that the API server takes`, async t => {
    const objects = objectsOf(file)
    t.ok(objects.length > 0)
    for (const object of objects)
      t.strictSame(await schemaFaults(object), [], `${object.kind} ${object.metadata.name}`)
    const keys = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`)
    t.equal(new Set(keys).size, keys.length, 'each is there once')
  })

await t.test('what is wrong is found', async t => {
  const deployment = objectsOf(INSTALLS[0]!).find(({ kind }) => kind === 'Deployment')!
  const broken = structuredClone(deployment) as unknown as Record<string, unknown> & {
    spec: {
      selector?: object
      replicas: unknown
      template: { spec: { containers: Record<string, unknown>[] } }
    }
  }
  broken.spec.replicas = 'two'
  broken.spec.template.spec.containers[0]!['memory'] = '1Gi'
  delete broken.spec.selector
  const faults = (await schemaFaults(broken)).join('; ')
  t.match(faults, /\.spec\.template\.spec\.containers\[0\]\.memory does not exist in V1Container/)
  t.match(faults, /\.spec\.replicas is string, not number/)
  t.match(faults, /selector/, 'what is required')
  t.strictSame(await schemaFaults({ apiVersion: 'v1', kind: 'Pot', metadata: {} }), ['v1 has no Pot'])
})
