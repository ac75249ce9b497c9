import * as fc from 'fast-check'
import t from 'tap'
import { objectKey, World, type WorldChange } from '../../../ca-server/world/world.ts'
import type { KubeObject } from '../../../lib/kube/objects.ts'
import { kubeNamespace, kubeNode, kubePod, kubeService, kubeSlice } from '../../helpers/kube-world.ts'

await t.test('listeners hear of what changed, and of nothing else', t => {
  const world = new World()
  const batches: (readonly WorldChange[])[] = []
  world.onChange(changes => batches.push(changes))
  t.notOk(world.isSynced)
  world.replaceAll([])
  t.ok(world.isSynced)
  t.strictSame(batches, [[]], 'an empty world is news when it is the first')

  const one = kubePod('one')
  world.replaceAll([one, kubeNode('node-a', '10.99.0.1')])
  world.replaceAll([kubePod('one'), kubeNode('node-a', '10.99.0.1')])
  t.equal(batches.length, 2, 'equal objects are no change')
  const changed = kubePod('one', { ips: ['10.98.1.99'] })
  world.replaceAll([changed])
  t.strictSame(batches[2], [
    { kind: 'Node', key: 'node-a', before: kubeNode('node-a', '10.99.0.1'), after: undefined },
    { kind: 'Pod', key: 'shop/one', before: one, after: changed },
  ])
  world.apply(
    [],
    [
      { kind: 'Pod', key: 'shop/one' },
      { kind: 'Pod', key: 'shop/none' },
    ],
  )
  t.strictSame(batches[3], [{ kind: 'Pod', key: 'shop/one', before: changed, after: undefined }])
  t.end()
})

await t.test('what a listing did not name goes at its end, and other kinds are not touched', t => {
  const world = new World()
  const batches: (readonly WorldChange[])[] = []
  world.apply([kubePod('one'), kubePod('two'), kubeNamespace('shop')], [])
  world.onChange(changes => batches.push(changes))
  world.apply([kubePod('one'), kubePod('three')], [])
  world.keepOnly('Pod', new Set(['shop/one', 'shop/three']))
  t.strictSame(
    batches.map(changes => changes.map(({ key, after }) => [key, after !== undefined])),
    [[['shop/three', true]], [['shop/two', false]]],
  )
  t.notOk(world.isSynced, 'the other kinds may be still to come')
  world.keepOnly('Pod', new Set(['shop/one', 'shop/three']))
  t.equal(batches.length, 2)
  world.completed()
  t.ok(world.isSynced)
  t.strictSame(batches[2], [], 'that it is whole is news')
  world.completed()
  t.equal(batches.length, 3)
  t.ok(world.namespace('shop'))
  world.keepOnly('Node', new Set())
  t.equal(batches.length, 3)
  t.end()
})

await t.test('who waits for a pod is told when it comes, or that it did not', async t => {
  const world = new World()
  const signal = new AbortController().signal
  const coming = world.whenPod('uid-one', 60_000, signal)
  world.apply([kubePod('two')], [])
  world.apply([kubePod('one')], [])
  t.equal((await coming)?.metadata.name, 'one')
  t.equal((await world.whenPod('uid-one', 60_000, signal))?.metadata.name, 'one', 'at once when it is there')
  t.equal(await world.whenPod('uid-none', 1, signal), undefined)
  t.equal(await world.whenPod('uid-none', 60_000, AbortSignal.abort()), undefined)
  const controller = new AbortController()
  const waiting = world.whenPod('uid-none', 60_000, controller.signal)
  controller.abort()
  t.equal(await waiting, undefined)
})

await t.test('indices always agree with a plain search', t => {
  const names = fc.constantFrom('a', 'b', 'c')
  const pod = fc
    .record({
      name: names,
      namespace: fc.constantFrom('shop', 'legacy'),
      node: fc.constantFrom('node-a', 'node-b'),
      uid: fc.constantFrom('1', '2', '3', '4'),
      ips: fc.subarray(['10.0.0.1', '10.0.0.2', 'fd00::1']),
    })
    .map(({ name, ...shape }) => kubePod(name, { ...shape, uid: `${shape.namespace}-${name}-${shape.uid}` }))
  const slice = fc
    .record({ service: names, pods: fc.array(pod, { maxLength: 3 }) })
    .map(({ service, pods }) => kubeSlice(service, pods))
  const object = fc.oneof<fc.Arbitrary<KubeObject>[]>(
    pod,
    slice,
    names.map(name => kubeService(name)),
    names.map(name => kubeNamespace(name)),
  )
  const unique = (objects: KubeObject[]) => [
    ...new Map(objects.map(found => [`${found.kind} ${objectKey(found.metadata)}`, found])).values(),
  ]
  fc.assert(
    fc.property(fc.array(fc.array(object, { maxLength: 8 }).map(unique), { maxLength: 6 }), steps => {
      const world = new World()
      for (const objects of steps) {
        world.replaceAll(objects)
        const pods = objects.filter(found => found.kind === 'Pod')
        const slices = objects.filter(found => found.kind === 'EndpointSlice')
        const sorted = (found: Iterable<KubeObject>) => [...found].map(({ metadata }) => metadata.uid).sort()
        for (const node of ['node-a', 'node-b'])
          t.strictSame(
            sorted(world.podsOnNode(node)),
            sorted(pods.filter(({ spec }) => spec.nodeName === node)),
          )
        for (const ip of ['10.0.0.1', 'fd00::1'])
          t.strictSame(
            sorted(world.podsByIp(ip)),
            sorted(pods.filter(({ status }) => status.podIPs.includes(ip))),
          )
        for (const found of pods)
          t.equal(world.podByUid(found.metadata.uid)?.metadata.uid, found.metadata.uid)
        for (const name of ['a', 'b']) {
          const naming = slices.filter(({ endpoints }) =>
            endpoints.some(({ targetRef }) => targetRef?.name === name && targetRef.namespace === 'shop'),
          )
          t.strictSame(sorted(world.slicesOfPod(`shop/${name}`)), sorted(naming))
          t.strictSame(
            sorted(world.slicesOfService(`shop/${name}`)),
            sorted(slices.filter(({ serviceName }) => serviceName === name)),
          )
        }
      }
    }),
    { numRuns: 60 },
  )
  t.end()
})
