import t from 'tap'
import { parseManifest } from '../../../lib/kube/manifest.ts'
import { planChanges } from '../../../lab/cluster/apply.ts'

const read = (text: string) => parseManifest(text, 'x')
const pod = (name: string, image = 'i', annotation = 'a') =>
  `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, annotations: {k: ${annotation}}}, spec: {containers: [{name: c, image: ${image}}]}}\n---\n`
const namespace = (name: string, value: string) =>
  `{apiVersion: v1, kind: Namespace, metadata: {name: ${name}, annotations: {k: ${value}}}}\n---\n`

const names = (objects: readonly { metadata: { name: string } }[]) =>
  objects.map(({ metadata }) => metadata.name)

await t.test('the same file again asks for nothing', async t => {
  const text = namespace('n', 'a') + pod('p')
  t.strictSame(planChanges(read(text), read(text)), {
    put: [],
    drop: [],
    addPods: [],
    replacePods: [],
    relabelPods: [],
    removePods: [],
  })
})

await t.test('each kind of difference is told apart', async t => {
  const before = namespace('same', 'a') + namespace('other', 'a') + namespace('gone', 'a')
  const after = namespace('same', 'a') + namespace('other', 'b') + namespace('new', 'a')
  const plan = planChanges(
    read(before + pod('same') + pod('labels') + pod('spec') + pod('gone')),
    read(after + pod('same') + pod('labels', 'i', 'b') + pod('spec', 'j') + pod('new')),
  )
  t.strictSame(names(plan.put), ['other', 'new'])
  t.strictSame(plan.drop, ['Namespace gone'])
  t.strictSame(names(plan.addPods), ['new'])
  t.strictSame(names(plan.replacePods), ['spec'])
  t.strictSame(names(plan.relabelPods), ['labels'])
  t.strictSame(plan.removePods, ['Pod default/gone'])
})
