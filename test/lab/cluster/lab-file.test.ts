import * as fc from 'fast-check'
import t from 'tap'
import { CulvertError } from '../../../lib/errors.ts'
import { DEFAULT_LAB_FILE } from '../../../lab/client/start.ts'
import { parseLabFile, readLabFile } from '../../../lab/cluster/lab-file.ts'
import { codePoint } from '../../helpers/code-point.ts'

const pod = (name: string, extra = '', annotations = '') => `
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: default, annotations: { ${annotations} } }
spec: { containers: [{ name: a, command: [sleep, infinity] }] ${extra} }`

await t.test('the default lab has what everything else speaks of', async t => {
  const { objects, nodes } = readLabFile(DEFAULT_LAB_FILE)
  t.strictSame(nodes, ['node-a', 'node-b'])
  const names = objects.map(({ kind, metadata: { namespace, name } }) => `${kind} ${namespace ?? ''}/${name}`)
  for (const name of [
    'Pod shop/client',
    'Pod shop/server',
    'Pod shop/server-2',
    'Pod legacy/old',
    'Service shop/echo',
  ])
    t.ok(names.includes(name), name)
})

await t.test('nodes are those of the file, else those that pods name, else two', async t => {
  t.strictSame(parseLabFile('', 'x').nodes, ['node-a', 'node-b'])
  t.strictSame(
    parseLabFile(pod('a', ', nodeName: node-z') + pod('b', '', 'culvert.dev/lab-node: node-y'), 'x').nodes,
    ['node-y', 'node-z'],
  )
  t.strictSame(parseLabFile('{apiVersion: v1, kind: Node, metadata: {name: n}}', 'x').nodes, ['n'])
})

await t.test('names that nothing is called by are told, all at once', async t => {
  const text = `{apiVersion: v1, kind: Node, metadata: {name: node-a}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: s, namespace: nowhere}}${pod('a', ', nodeName: node-b')}`
  t.throws(() => parseLabFile(text, 'lab.yaml'), {
    code: 'INPUT',
    message:
      "lab.yaml: ServiceAccount nowhere/s: metadata.namespace is 'nowhere', and there is no such Namespace\n" +
      "lab.yaml: Pod default/a: node 'node-b' does not exist (node-a do)",
  })
})

await t.test('a file that is not there, and a node of a reserved name, are errors', async t => {
  t.throws(() => readLabFile('/nonexistent/lab.yaml'), { code: 'INPUT', message: /\/nonexistent\/lab\.yaml/ })
  t.throws(() => parseLabFile('{apiVersion: v1, kind: Node, metadata: {name: cp}}', 'x'), { code: 'LAB' })
})

await t.test('any text is a lab with a node at least, or one error with a code', async t => {
  const piece = fc.constantFrom(
    'apiVersion: v1',
    'kind: Node',
    'kind: Pod',
    'kind: Namespace',
    'metadata: { name: a }',
    'metadata: { name: cp }',
    'metadata: { name: a, namespace: b }',
    'metadata: { name: a, annotations: { culvert.dev/lab-node: n } }',
    'spec: { nodeName: m, containers: [{ name: a }] }',
    'spec: {}',
    '---',
    '- a',
    '&a [*a]',
  )
  const text = fc.oneof(
    fc.string({ unit: codePoint() }),
    fc.array(piece, { maxLength: 15 }).map(lines => lines.join('\n')),
  )
  fc.assert(
    fc.property(text, text => {
      try {
        return parseLabFile(text, 'x').nodes.length > 0
      } catch (err) {
        if (!(err instanceof CulvertError)) throw err
        return err.code === 'INPUT' || err.code === 'LAB'
      }
    }),
    { numRuns: 200 },
  )
  t.pass('no other exception')
})
