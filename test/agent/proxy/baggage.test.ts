import * as fc from 'fast-check'
import t from 'tap'
import { formatBaggage, parseBaggage, type Baggage } from '../../../agent/proxy/baggage.ts'
import { codePoint } from '../../helpers/code-point.ts'

const FULL =
  'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=client,service.name=client,' +
  'service.version=v1,cloud.region=eu-1,cloud.availability_zone=eu-1a'

await t.test('the form that mesh peers send', async t => {
  const baggage: Baggage = {
    cluster: 'Kubernetes',
    namespace: 'shop',
    workloadKind: 'deployment',
    workload: 'client',
    service: 'client',
    version: 'v1',
    region: 'eu-1',
    zone: 'eu-1a',
  }
  t.equal(formatBaggage(baggage), FULL)
  t.strictSame(parseBaggage(FULL), baggage)
})

await t.test('what is not known is left out', async t => {
  t.equal(formatBaggage({}), '')
  t.equal(formatBaggage({ namespace: 'shop', service: '' }), 'k8s.namespace.name=shop')
  t.equal(formatBaggage({ workload: 'client' }), 'k8s.pod.name=client')
  t.strictSame(parseBaggage(''), {})
  t.strictSame(parseBaggage('k8s.cluster.name=,service.name= '), {})
})

await t.test('each kind of workload is read', async t => {
  for (const workloadKind of ['deployment', 'cronjob', 'pod', 'job'] as const)
    t.strictSame(parseBaggage(`k8s.${workloadKind}.name=a`), { workloadKind, workload: 'a' })
  t.strictSame(parseBaggage('k8s.job.name=a,k8s.pod.name=b'), { workloadKind: 'job', workload: 'a' })
  t.strictSame(parseBaggage('k8s.node.name=a'), {})
})

await t.test('space, properties, escapes and strangers are understood or passed over', async t => {
  t.strictSame(parseBaggage(' service.name = a ; k=v;q , user=alice,service.version=1%2C2,=,x,,'), {
    service: 'a',
    version: '1,2',
  })
  t.strictSame(parseBaggage('service.name=a,service.name=b'), { service: 'a' })
  t.strictSame(parseBaggage('service.name=%ff,service.name=%,service.name=b'), { service: 'b' })
  t.strictSame(parseBaggage('__proto__=a,constructor=b'), {})
  t.equal(formatBaggage({ service: 'a,b;c="é %' }), 'service.name=a%2Cb%3Bc=%22%C3%A9%20%25')
})

await t.test('hostile headers are bounded', async t => {
  t.strictSame(parseBaggage(`service.name=a,${'x'.repeat(9000)}`), {}, 'longer than a header may be')
  t.strictSame(parseBaggage(`${'a=b,'.repeat(64)}service.name=a`), {}, 'past the last member')
  t.strictSame(parseBaggage(`service.name=${'a'.repeat(254)},service.version=${'v'.repeat(253)}`), {
    version: 'v'.repeat(253),
  })
  t.strictSame(parseBaggage('service.name=a%0D%0Aforged=line,service.version=%00'), {}, 'control characters')
})

const VALUE = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
  .filter(text => text.trim() === text && text !== '' && !/\p{Cc}/u.test(text))

await t.test('what is written is read again', async () => {
  const baggage = fc.record(
    { cluster: VALUE, namespace: VALUE, service: VALUE, version: VALUE, region: VALUE, zone: VALUE },
    { requiredKeys: [] },
  )
  const workload = fc.option(
    fc.record({ workloadKind: fc.constantFrom('deployment', 'cronjob', 'pod', 'job'), workload: VALUE }),
    { nil: {} },
  )
  fc.assert(
    fc.property(baggage, workload, (baggage, workload) => {
      const all = { ...baggage, ...workload }
      const text = formatBaggage(all)
      const read = parseBaggage(text)
      return (
        /^[!-~]*$/.test(text) &&
        Object.entries(all).every(([key, value]) => read[key as keyof Baggage] === value)
      )
    }),
  )
})

await t.test('any text is read without an error, into names that fit a log line', async () => {
  const piece = fc.constantFrom(
    'service.name',
    'k8s.pod.name',
    'cloud.region',
    '=',
    ',',
    ';',
    '%',
    '%41',
    'a',
    ' ',
    '\n',
  )
  const text = fc.oneof(
    fc.string({ unit: codePoint() }),
    fc.array(piece, { maxLength: 30 }).map(pieces => pieces.join('')),
  )
  fc.assert(
    fc.property(text, text =>
      Object.values(parseBaggage(text)).every(
        value => value.length > 0 && value.length <= 253 && !/\p{Cc}/u.test(value),
      ),
    ),
    { numRuns: 2000 },
  )
})
