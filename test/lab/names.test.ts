import t from 'tap'
import { checkLabName, checkNodeName, labPaths, labsDir, nodePaths, podNetnsName } from '../../lab/names.ts'

await t.test('a lab is named so that its namespaces cannot be taken for another lab’s', async t => {
  for (const name of ['default', 'two', 'x_1', 'a'.repeat(16)]) t.doesNotThrow(() => checkLabName(name))
  for (const name of ['', 'a-b', 'A', 'a/b', '..', 'a'.repeat(17), 'ä'])
    t.throws(() => checkLabName(name), { code: 'LAB' }, name)
})

await t.test('a node cannot take the name of something else of the lab', async t => {
  t.doesNotThrow(() => checkNodeName('node-a'))
  for (const name of ['fabric', 'cp', 'ca', 'logs', 'a'.repeat(33)])
    t.throws(() => checkNodeName(name), { code: 'LAB' }, name)
})

await t.test('a pod’s namespace has its short name while that is free', async t => {
  const taken = new Set(['culvert-x-node-a'])
  const name = (namespace: string, pod: string) => {
    const found = podNetnsName('x', namespace, pod, other => taken.has(other))
    taken.add(found)
    return found
  }
  t.equal(name('shop', 'client'), 'culvert-x-client')
  t.equal(name('legacy', 'client'), 'culvert-x-legacy-client')
  t.equal(name('shop', 'node-a'), 'culvert-x-shop-node-a')
  t.equal(name('shop', 'fabric'), 'culvert-x-shop-fabric')
  t.throws(() => name('legacy', 'client'), { code: 'LAB', message: /legacy\/client/, hint: /in use/ })
})

await t.test(
  'paths lie in the lab’s own directory, and sockets have names short enough for the kernel',
  async t => {
    const paths = labPaths('a'.repeat(16), labsDir(false))
    const { adminSocket } = nodePaths(paths, 'n'.repeat(32))
    t.ok(adminSocket.startsWith(paths.run))
    t.ok(Buffer.byteLength(adminSocket) + '-1000'.length < 108)
    t.throws(() => labPaths('../etc'), { code: 'LAB' })
    t.notOk(labsDir(false).startsWith('/run/'))
  },
)
