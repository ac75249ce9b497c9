import * as fc from 'fast-check'
import t from 'tap'
import { CulvertError } from '../../../lib/errors.ts'
import { parseRecords } from '../../../agent/pods/holder-file.ts'
import { LookBudget } from '../../../agent/pods/look-budget.ts'
import { parsePods } from '../../../agent/pods/pod-file.ts'

const good = {
  uid: 'u',
  namespace: 'shop',
  name: 'client',
  serviceAccount: 'default',
  ips: ['FD00::1', '10.0.0.1'],
  annotations: { 'culvert.dev/mesh': 'enabled' },
  netns: '/run/netns/x',
  terminating: false,
}

await t.test('a pod is read, its addresses canonical, IPv4 first', async t => {
  t.strictSame(parsePods(JSON.stringify({ pods: [good] })), [{ ...good, ips: ['10.0.0.1', 'fd00::1'] }])
})

await t.test('what is wrong is named', async t => {
  for (const [change, message] of [
    [{ uid: '' }, 'pods[0].uid is not a text'],
    [{ name: 7 }, 'pods[0].name is not a text'],
    [{ ips: [] }, 'pods[0].ips is not a list of addresses'],
    [{ ips: ['10.0.0.256'] }, "pods[0].ips[0]: not an IP address: '10.0.0.256'"],
    [{ annotations: { a: 1 } }, 'pods[0].annotations.a is not a text'],
    [{ annotations: [] }, 'pods[0].annotations is not an object'],
    [{ netns: 'run/x' }, 'pods[0].netns is not an absolute path'],
    [{ terminating: 'no' }, 'pods[0].terminating is not true or false'],
  ] as const)
    t.throws(() => parsePods(JSON.stringify({ pods: [{ ...good, ...change }] })), { code: 'INPUT', message })
  t.throws(() => parsePods('{'), { code: 'INPUT', message: 'not JSON' })
  t.throws(() => parsePods('{"pods":{}}'), { message: 'pods is not a list' })
  t.throws(() => parsePods('{"pods":[null]}'), { message: 'pods[0] is not an object' })
  t.throws(() => parsePods(JSON.stringify({ pods: [good, good] })), {
    message: "pods[1].uid: 'u' is there twice",
  })
})

await t.test('whatever is in the file, the outcome is a list or an error with a code', async () => {
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record({ pods: fc.array(fc.oneof(fc.jsonValue(), fc.constant(good))) })
      .map(value => JSON.stringify(value)),
  )
  fc.assert(
    fc.property(text, text => {
      for (const parse of [parsePods, (text: string) => parseRecords(text, 'holders.json')]) {
        try {
          parse(text)
        } catch (err) {
          if (!(err instanceof CulvertError)) throw err
        }
      }
    }),
  )
})

await t.test('a record of holders is read, and what is wrong in it is named', async t => {
  const record = { pid: 7, startTime: 8, netnsInode: 9, fds: { outbound: 3, inbound: 4, hbone: 5 } }
  const text = (more: object) => JSON.stringify({ pods: { u: { ...record, ...more } } })
  t.match(parseRecords(text({}), 'f'), { u: record })
  t.throws(() => parseRecords(text({ pid: -1 }), 'f'), {
    code: 'INPUT',
    message: 'f: pods.u: pid is not a positive number',
  })
  t.throws(() => parseRecords(text({ fds: 3 }), 'f'), { message: 'f: pods.u is not a record' })
})

await t.test(
  'whatever is in the record of holders, the outcome is records or an error with a code',
  async () => {
    const entry = fc.record(
      {
        pid: fc.oneof(fc.integer(), fc.jsonValue()),
        startTime: fc.nat(),
        netnsInode: fc.nat(),
        fds: fc.oneof(fc.jsonValue(), fc.record({ outbound: fc.nat(), inbound: fc.nat(), hbone: fc.nat() })),
      },
      { requiredKeys: [] },
    )
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .dictionary(fc.oneof(fc.string(), fc.constant('__proto__')), fc.oneof(fc.jsonValue(), entry))
        .map(pods => JSON.stringify({ pods })),
    )
    fc.assert(
      fc.property(text, text => {
        try {
          for (const { pid, fds } of Object.values(parseRecords(text, 'f')))
            if (!(pid > 0 && fds.outbound > 0 && fds.inbound > 0 && fds.hbone > 0)) return false
          return true
        } catch (err) {
          return err instanceof CulvertError && err.code === 'INPUT'
        }
      }),
      { numRuns: 1000 },
    )
  },
)

await t.test('a pod has a few looks at once, then two a second', async t => {
  const budget = new LookBudget()
  const taken = (nowMs: number) => {
    let count = 0
    while (budget.take(nowMs)) count++
    return count
  }
  t.equal(taken(10_000), 5)
  t.equal(taken(10_400), 0)
  t.equal(taken(10_500), 1)
  t.equal(taken(12_000), 3)
  t.equal(taken(60_000), 5)
})
