import { deepStrictEqual } from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { parseAllDocuments } from 'yaml'
import { DocumentReader } from '../../../lib/kube/documents.ts'
import { stringifyManifest } from '../../../lib/kube/manifest.ts'
import { kubeObjects } from '../../helpers/kube-arbitrary.ts'

/** What the library makes of the whole text. */
function wholeOf(text: string): unknown[] {
  const documents = parseAllDocuments(text, { merge: true, prettyErrors: false, logLevel: 'silent' })
  return [...documents].map(document => {
    try {
      return document.errors.length > 0 ? null : (document.toJS() as unknown)
    } catch {
      return null // an alias of nothing
    }
  })
}

const isFilled = (value: unknown) => value !== null

await t.test('any lines are read as the whole text would be, the first time and again', async t => {
  const line = fc.constantFrom(
    'a: 1',
    '  b: 2',
    '- x',
    '---',
    '--- ',
    '---\t',
    '--- # a comment',
    '--- {a: 1}',
    '---x: 1',
    ' ---',
    '...',
    '# a comment',
    '',
    '  ',
    '%YAML 1.2',
    'text: |',
    '  ---',
    'folded: >-',
    'quoted: "',
    '"',
    'a: &a [1]',
    'b: *a',
    'windows: 1\r',
  )
  const reader = new DocumentReader()
  const property = fc.property(fc.array(line, { maxLength: 12 }), lines => {
    const text = lines.join('\n')
    const whole = wholeOf(text)
    for (let times = 0; times < 2; times++) {
      const problems: string[] = []
      const read = reader.read(text, problems)
      deepStrictEqual(read.filter(isFilled), whole.filter(isFilled))
      if (problems.length > 0) deepStrictEqual(read, whole)
    }
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})

await t.test('what was there the last time is the same value, what is new or changed is not', async t => {
  const property = fc.property(kubeObjects, kubeObjects, (objects, others) => {
    const reader = new DocumentReader()
    const first = reader.read(stringifyManifest(objects), [])
    const [, ...rest] = reader.read(stringifyManifest([...others.slice(0, 1), ...objects]), [])
    const both = others.length > 0 ? rest : reader.read(stringifyManifest(objects), [])
    both.forEach((value, at) => deepStrictEqual(value, first[at]))
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 50 }))
  const reader = new DocumentReader()
  const [one, two] = reader.read('a: [1]\n---\nb: [2]\n', [])
  const again = reader.read('b: [2]\n---\na: [3]\n---\na: [1]\n', [])
  t.equal(again[0], two)
  t.strictSame(again[1], { a: [3] })
  t.equal(again[2], one)
  reader.read('c: 1\n', [])
  t.not(reader.read('a: [1]\n', [])[0], one, 'what was not there the last time is forgotten')
})

await t.test('documents have their numbers whether the first one has a separator or not', async t => {
  for (const text of ['a: 1\n---\nb: }\n', '---\na: 1\n---\nb: }\n', '# who\n---\na: 1\n---\nb: }\n']) {
    const problems: string[] = []
    t.strictSame(new DocumentReader().read(text, problems), [{ a: 1 }, null])
    t.match(problems, [/^document 2: not YAML at line \d+, column \d+: /])
  }
})
