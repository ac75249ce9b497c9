import * as fc from 'fast-check'
import t from 'tap'
import { ANNOTATION, mergeEnrolment, NOT_ENROLLED, parseEnrolment } from '../../lib/enrolment.ts'
import { codePoint } from '../helpers/code-point.ts'

await t.test('every annotation is understood', async t => {
  t.strictSame(
    parseEnrolment({
      'culvert.dev/mesh': 'enabled',
      'culvert.dev/mtls': ' strict ',
      'culvert.dev/mtls-outbound': 'require',
      'culvert.dev/mtls-cut-open': 'true',
      'culvert.dev/exclude-inbound-ports': '9100, 9200,',
      'culvert.dev/exclude-outbound-ports': '',
      'culvert.dev/exclude-outbound-cidrs': '10.1.2.3/8,FD00::1',
      'culvert.dev/status': '{"state":"enrolled"}',
      'example.com/mesh': 'nonsense',
    }),
    {
      mesh: true,
      strictInbound: true,
      requireOutbound: true,
      cutOpen: true,
      excludeInboundPorts: [9100, 9200],
      excludeOutboundPorts: [],
      excludeOutboundCidrs: ['10.0.0.0/8', 'fd00::1/128'],
      problems: [],
    },
  )
  t.strictSame(
    parseEnrolment({
      'culvert.dev/mesh': 'disabled',
      'culvert.dev/mtls': 'permissive',
      'culvert.dev/mtls-outbound': 'prefer',
      'culvert.dev/mtls-cut-open': 'false',
    }),
    { mesh: false, strictInbound: false, requireOutbound: false, cutOpen: false, problems: [] },
  )
  t.strictSame(parseEnrolment(undefined), { problems: [] })
  t.strictSame(parseEnrolment({}), { problems: [] })
})

await t.test('a value that is not understood is named and otherwise as if not there', async t => {
  for (const [name, value, problem] of [
    ['culvert.dev/mesh', 'on', "'on' is not one of enabled, disabled"],
    ['culvert.dev/mesh', 'constructor', "'constructor' is not one of enabled, disabled"],
    ['culvert.dev/mesh', '', "'' is not one of enabled, disabled"],
    ['culvert.dev/mtls', 'STRICT', "'STRICT' is not one of strict, permissive"],
    ['culvert.dev/mtls-outbound', 'strict', "'strict' is not one of require, prefer"],
    ['culvert.dev/mtls-cut-open', 'yes', "'yes' is not one of true, false"],
    ['culvert.dev/exclude-inbound-ports', '80,http', "'http' is not a port"],
    ['culvert.dev/exclude-inbound-ports', '0', "'0' is not a port"],
    ['culvert.dev/exclude-outbound-ports', '65536', "'65536' is not a port"],
    ['culvert.dev/exclude-outbound-ports', '80-90', "'80-90' is not a port"],
    ['culvert.dev/exclude-outbound-ports', '1e3', "'1e3' is not a port"],
    ['culvert.dev/exclude-outbound-cidrs', '10.0.0.0/8,10.0.0.0/33', "not a CIDR: '10.0.0.0/33'"],
    ['culvert.dev/mtsl', 'strict', 'no such annotation'],
  ] as const)
    t.strictSame(parseEnrolment({ [name]: value }), { problems: [`${name}: ${problem}`] }, `${name}=${value}`)
})

await t.test('one bad annotation does not hide the good ones', async t => {
  t.strictSame(parseEnrolment({ 'culvert.dev/mesh': 'enabled', 'culvert.dev/mtls': 'maybe' }), {
    mesh: true,
    problems: ["culvert.dev/mtls: 'maybe' is not one of strict, permissive"],
  })
})

await t.test('the pod is heard before its namespace, and nobody means not enrolled', async t => {
  t.strictSame(mergeEnrolment(parseEnrolment({}), parseEnrolment(undefined)), NOT_ENROLLED)
  const namespace = parseEnrolment({
    'culvert.dev/mesh': 'enabled',
    'culvert.dev/mtls': 'strict',
    'culvert.dev/exclude-inbound-ports': '9100',
    'culvert.dev/exclude-outbound-ports': '53',
    'culvert.dev/oops': '',
  })
  const pod = parseEnrolment({
    'culvert.dev/mtls': 'permissive',
    'culvert.dev/exclude-inbound-ports': '',
    'culvert.dev/mesh': 'perhaps',
  })
  t.strictSame(mergeEnrolment(namespace, pod), {
    ...NOT_ENROLLED,
    mesh: true,
    excludeOutboundPorts: [53],
    problems: [
      'culvert.dev/oops: no such annotation',
      "culvert.dev/mesh: 'perhaps' is not one of enabled, disabled",
    ],
  })
})

await t.test('each setting of a pod is its own, or its namespace’s, or the default', async () => {
  const wishes = fc.dictionary(
    fc.constantFrom(...Object.values(ANNOTATION)),
    fc.constantFrom(
      'enabled',
      'disabled',
      'strict',
      'permissive',
      'require',
      'prefer',
      'true',
      'false',
      '80',
      '10.0.0.0/8',
      '?',
    ),
  )
  fc.assert(
    fc.property(wishes, wishes, (ofNamespace, ofPod) => {
      const namespace = parseEnrolment(ofNamespace)
      const pod = parseEnrolment(ofPod)
      const merged: Record<string, unknown> = { ...mergeEnrolment(namespace, pod) }
      const asked: Record<string, unknown> = { ...NOT_ENROLLED, ...namespace, ...pod }
      return (
        JSON.stringify(merged.problems) === JSON.stringify([...namespace.problems, ...pod.problems]) &&
        Object.keys(NOT_ENROLLED).every(
          key => key === 'problems' || JSON.stringify(merged[key]) === JSON.stringify(asked[key]),
        )
      )
    }),
  )
})

await t.test('any annotations give wishes and problems, without an error', async () => {
  const name = fc.oneof(
    fc.constantFrom(...Object.values(ANNOTATION)),
    fc.string().map(text => `culvert.dev/${text}`),
  )
  fc.assert(
    fc.property(fc.dictionary(name, fc.string()), annotations => {
      const { problems } = parseEnrolment(annotations)
      return (
        problems.length <= Object.keys(annotations).length &&
        problems.every(text => text.startsWith('culvert.dev/'))
      )
    }),
  )
})

await t.test('what is said of annotations is bounded and fit for a terminal, whatever they are', async () => {
  const name = fc.oneof(
    fc.constantFrom(...Object.values(ANNOTATION)),
    fc.string({ unit: codePoint(), maxLength: 400 }).map(text => `culvert.dev/${text}`),
  )
  const value = fc.string({ unit: codePoint(), maxLength: 400 })
  fc.assert(
    fc.property(fc.dictionary(name, value, { maxKeys: 30 }), annotations => {
      const { problems } = parseEnrolment(annotations)
      return problems.length <= 10 && problems.every(text => text.length <= 201 && !/\p{C}/u.test(text))
    }),
  )
})
