import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import t from 'tap'
import { ChangeLog } from '../../../agent/mesh/changes.ts'
import { decodePolicy } from '../../../agent/mesh/decode-policy.ts'
import { Policies, type PolicySubject } from '../../../agent/mesh/policies.ts'
import { bytesFromIp, Cidr } from '../../../lib/address.ts'
import {
  Action,
  AuthorizationSchema,
  Scope,
  type Authorization,
  type Match,
  type MatchSchema,
  type StringMatch,
} from '../../../lib/proto/gen/istio/authorization_pb.js'
import { parseSpiffe } from '../../../lib/spiffe.ts'
import { policyBytes } from '../../helpers/mesh-world.ts'

type MatchInit = MessageInitShape<typeof MatchSchema>

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'
const SUBJECT: PolicySubject = {
  identity: IDENTITY,
  sourceIp: '10.2.0.2',
  destinationIp: '10.1.0.2',
  destinationPort: 8080,
}

interface PolicyShape {
  name?: string
  namespace?: string
  scope?: Scope
  action?: Action
  dryRun?: boolean
  rules?: MatchInit[][][]
}

function policiesOf(...shapes: PolicyShape[]): Policies {
  const policies = new Policies(new ChangeLog())
  for (const [at, shape] of shapes.entries()) {
    const { name = `p${at}`, namespace = 'shop', scope = Scope.NAMESPACE, action = Action.ALLOW } = shape
    const bytes = policyBytes({
      name,
      namespace,
      scope,
      action,
      dryRun: shape.dryRun ?? false,
      rules: (shape.rules ?? []).map(clauses => ({ clauses: clauses.map(matches => ({ matches })) })),
    })
    policies.put(decodePolicy(`${namespace}/${name}`, bytes))
  }
  return policies
}

function verdict(policies: Policies, subject: Partial<PolicySubject> = {}, named: string[] = []) {
  return policies.evaluate({ namespace: 'shop', named }, { ...SUBJECT, ...subject })
}

const EVERYTHING: MatchInit[][][] = [[]]
const presence = { matchType: { case: 'presence' as const, value: {} } }

await t.test('without policies everything may come in', async t => {
  t.match(verdict(policiesOf()), { isAllowed: true, dryRun: [], missing: [] })
})

await t.test('a DENY that matches beats every ALLOW; an ALLOW that does not match refuses', async t => {
  const allow = { name: 'allow', rules: EVERYTHING }
  const deny = { name: 'deny', action: Action.DENY, rules: [[[{ destinationPorts: [9999] }]]] }
  t.ok(verdict(policiesOf(allow, deny)).isAllowed)
  t.match(verdict(policiesOf(allow, deny), { destinationPort: 9999 }), {
    isAllowed: false,
    detail: 'denied by policy shop/deny',
  })
  t.match(verdict(policiesOf({ rules: [[[{ destinationPorts: [9999] }]]] })), {
    isAllowed: false,
    detail: 'no ALLOW policy matches',
  })
})

await t.test('an ALLOW without rules allows nobody, a DENY without rules denies nobody', async t => {
  t.notOk(verdict(policiesOf({ rules: [] })).isAllowed)
  t.ok(verdict(policiesOf({ rules: [], action: Action.DENY })).isAllowed)
})

await t.test('an empty clause matches, a match without fields does not', async t => {
  const allows = (rules: MatchInit[][][]) => verdict(policiesOf({ rules })).isAllowed
  t.ok(allows([[[]]]))
  t.notOk(allows([[[{}]]]))
  t.ok(allows([[[{}, { destinationPorts: [8080] }]]]))
  t.notOk(allows([[[{ destinationPorts: [8080] }], [{}]]]))
})

await t.test('plaintext matches no identity, and every negated one', async t => {
  const strict = policiesOf({ action: Action.DENY, rules: [[[{ notPrincipals: [presence] }]]] })
  t.ok(verdict(strict).isAllowed)
  t.notOk(verdict(strict, { identity: undefined }).isAllowed)
  for (const match of [
    { principals: [presence] },
    { namespaces: [presence] },
    { namespaces: [{ matchType: { case: 'prefix' as const, value: '' } }] },
    { serviceAccounts: [{ namespace: 'shop', serviceAccount: 'client' }] },
  ])
    t.notOk(verdict(policiesOf({ rules: [[[match]]] }), { identity: undefined }).isAllowed)
})

await t.test('policies concern by scope: everywhere, their namespace, or who names them', async t => {
  const deny = { action: Action.DENY, rules: EVERYTHING }
  t.notOk(verdict(policiesOf({ ...deny, scope: Scope.GLOBAL, namespace: 'root' })).isAllowed)
  t.ok(verdict(policiesOf({ ...deny, namespace: 'elsewhere' })).isAllowed)
  const selector = policiesOf({ ...deny, name: 's', scope: Scope.WORKLOAD_SELECTOR })
  t.ok(verdict(selector).isAllowed)
  t.notOk(verdict(selector, {}, ['shop/s']).isAllowed)
  t.strictSame(verdict(selector, {}, ['shop/s', 'shop/gone']).missing, ['shop/gone'])
})

await t.test('a policy that is replaced or removed has no more say', async t => {
  const policies = policiesOf({ name: 'p', action: Action.DENY, rules: EVERYTHING, scope: Scope.GLOBAL })
  t.notOk(verdict(policies).isAllowed)
  const replaced = { name: 'p', namespace: 'shop', scope: Scope.WORKLOAD_SELECTOR, action: Action.DENY }
  policies.put(decodePolicy('shop/p', policyBytes({ ...replaced, rules: [{}] })))
  t.ok(verdict(policies).isAllowed)
  policies.remove('shop/p')
  t.equal(policies.size, 0)
})

await t.test('dry-run policies say what they would have refused, and refuse nothing', async t => {
  const refused = (...shapes: PolicyShape[]) => {
    const { isAllowed, dryRun } = verdict(policiesOf(...shapes))
    return isAllowed && dryRun
  }
  const dryDeny = { dryRun: true, action: Action.DENY, rules: EVERYTHING }
  const dryMiss = { dryRun: true, rules: [[[{ destinationPorts: [1] }]]] }
  t.strictSame(refused(dryDeny), ['shop/p0'])
  t.strictSame(refused(dryMiss), ['shop/p0'])
  t.strictSame(refused(dryMiss, { dryRun: true, rules: EVERYTHING }), [], 'another one would have let it in')
  t.strictSame(refused(dryMiss, { rules: EVERYTHING }), [], 'an enforced one lets it in')
})

await t.test('what is not understood refuses the whole policy', async t => {
  // Some of it is nothing that a well-behaved sender could say.
  const encode = (init: object) =>
    toBinary(AuthorizationSchema, create(AuthorizationSchema, { name: 'p', namespace: 'shop', ...init }))
  const withMatch = (match: MatchInit) => encode({ rules: [{ clauses: [{ matches: [match] }] }] })
  const cases: [Uint8Array, RegExp][] = [
    [withMatch({ principals: [{}] }), /rules\[0\]\.clauses\[0\]\.matches\[0\]: a match of text/],
    [withMatch({ sourceIps: [{ address: Uint8Array.of(1, 2), length: 8 }] }), /matches\[0\]: not a CIDR/],
    [withMatch({ destinationIps: [{ address: bytesFromIp('10.0.0.1'), length: 33 }] }), /not a CIDR/],
    [withMatch({ destinationPorts: [70_000] }), /70000 is not a port/],
    [encode({ action: 7 }), /no such action: 7/],
    [encode({ scope: 9 }), /no such scope: 9/],
    [encode({ name: 'other' }), /'shop\/other' is not the resource's name/],
    [Uint8Array.of(0xff, 0xff), /not an Authorization message/],
  ]
  for (const [bytes, message] of cases)
    t.throws(() => decodePolicy('shop/p', bytes), { code: 'INPUT', message })
})

// A second evaluator, written along the text of the semantics over the messages themselves.
function naiveMatches(policy: Authorization, subject: PolicySubject): boolean {
  const id = subject.identity === undefined ? undefined : parseSpiffe(subject.identity)
  const principal = subject.identity?.replace('spiffe://', '')
  const text = (match: StringMatch, value: string | undefined): boolean => {
    if (value === undefined) return false
    const wanted = match.matchType
    if (wanted.case === 'exact') return value === wanted.value
    if (wanted.case === 'prefix') return value.startsWith(wanted.value)
    if (wanted.case === 'suffix') return value.endsWith(wanted.value)
    return value.length > 0
  }
  const holds = (match: Match): boolean => {
    const pairs: [boolean[], boolean[]][] = [
      [
        match.namespaces.map(m => text(m, id?.namespace)),
        match.notNamespaces.map(m => text(m, id?.namespace)),
      ],
      [match.principals.map(m => text(m, principal)), match.notPrincipals.map(m => text(m, principal))],
      [
        match.destinationPorts.map(port => port === subject.destinationPort),
        match.notDestinationPorts.map(port => port === subject.destinationPort),
      ],
      [
        match.sourceIps.map(m => Cidr.fromBytes(m.address, m.length).contains(subject.sourceIp)),
        match.notSourceIps.map(m => Cidr.fromBytes(m.address, m.length).contains(subject.sourceIp)),
      ],
      [
        match.serviceAccounts.map(
          m => m.namespace === id?.namespace && m.serviceAccount === id.serviceAccount,
        ),
        match.notServiceAccounts.map(
          m => m.namespace === id?.namespace && m.serviceAccount === id.serviceAccount,
        ),
      ],
    ]
    if (pairs.every(([any, none]) => any.length + none.length === 0)) return false
    return pairs.every(([any, none]) => (any.length === 0 || any.includes(true)) && !none.includes(true))
  }
  for (const rule of policy.rules) {
    let all = true
    for (const clause of rule.clauses) all &&= clause.matches.length === 0 || clause.matches.some(holds)
    if (all) return true
  }
  return false
}

const word = fc.constantFrom('shop', 'client', 'cluster.local/ns/shop/sa/client', 'cluster', '', 'x')
const stringMatch = fc.oneof(
  fc.record({
    matchType: fc.record({ case: fc.constantFrom('exact' as const, 'prefix', 'suffix'), value: word }),
  }),
  fc.constant(presence),
) as fc.Arbitrary<
  MessageInitShape<typeof MatchSchema>['namespaces'] extends (infer T)[] | undefined ? T : never
>
const few = <T>(each: fc.Arbitrary<T>) => fc.array(each, { maxLength: 2 })
const range = fc.constantFrom(
  { address: bytesFromIp('10.2.0.0'), length: 16 },
  { address: bytesFromIp('10.9.0.0'), length: 16 },
  { address: bytesFromIp('fd00::'), length: 8 },
)
const account = fc.record({
  namespace: fc.constantFrom('shop', 'x'),
  serviceAccount: fc.constantFrom('client', 'x'),
})
const port = fc.constantFrom(8080, 9090)
const match = fc.record(
  {
    namespaces: few(stringMatch),
    notNamespaces: few(stringMatch),
    principals: few(stringMatch),
    notPrincipals: few(stringMatch),
    serviceAccounts: few(account),
    notServiceAccounts: few(account),
    sourceIps: few(range),
    notSourceIps: few(range),
    destinationPorts: few(port),
    notDestinationPorts: few(port),
  },
  { requiredKeys: [] },
)
const rules = few(few(few(match)))
const authorization = fc.record({
  rules,
  action: fc.constantFrom(Action.ALLOW, Action.DENY),
  dryRun: fc.boolean(),
})
const subject = fc.record({
  identity: fc.constantFrom(undefined, IDENTITY, 'spiffe://other/ns/x/sa/x'),
  sourceIp: fc.constantFrom('10.2.0.2', '10.9.1.1', 'fd00::1'),
  destinationIp: fc.constant('10.1.0.2'),
  destinationPort: port,
})

await t.test('random policies decide as the plain reading of the rules does', async t => {
  fc.assert(
    fc.property(fc.array(authorization, { maxLength: 4 }), subject, (shapes, subject) => {
      const policies = new Policies(new ChangeLog())
      const messages: Authorization[] = []
      for (const [at, { rules, action, dryRun }] of shapes.entries()) {
        const message = create(AuthorizationSchema, {
          name: `p${at}`,
          namespace: 'shop',
          scope: Scope.NAMESPACE,
          action,
          dryRun,
          rules: rules.map(clauses => ({
            clauses: clauses.map(matches => ({ matches: matches as MatchInit[] })),
          })),
        })
        messages.push(message)
        policies.put(decodePolicy(`shop/p${at}`, toBinary(AuthorizationSchema, message)))
      }
      const enforced = messages.filter(message => !message.dryRun)
      const allows = enforced.filter(message => message.action === Action.ALLOW)
      const isDenied = enforced.some(m => m.action === Action.DENY && naiveMatches(m, subject))
      const isAllowed = !isDenied && (allows.length === 0 || allows.some(m => naiveMatches(m, subject)))
      t.equal(policies.evaluate({ namespace: 'shop', named: [] }, subject).isAllowed, isAllowed)
    }),
    { numRuns: 1000 },
  )
})
