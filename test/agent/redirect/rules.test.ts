import t from 'tap'
import { NOT_ENROLLED, type Enrolment } from '../../../lib/enrolment.ts'
import { CHAINS, type Rule } from '../../../agent/redirect/rule.ts'
import { describeRules } from '../../../agent/redirect/rules.ts'
import { MAX_EXCLUSIONS } from '../../../agent/redirect/settings.ts'

const enrolment = (more: Partial<Enrolment> = {}): Enrolment => ({ ...NOT_ENROLLED, mesh: true, ...more })
const describe = (settings: Enrolment, seesListeners = true) =>
  describeRules(settings, { seesListeners, hasZones: true })
const everything = enrolment({
  strictInbound: true,
  requireOutbound: true,
  excludeInboundPorts: [9090, 9091],
  excludeOutboundPorts: [5432],
  excludeOutboundCidrs: ['10.0.0.0/8', 'fd00::/8'],
})

await t.test('every rule has a name of its own and a reason', async t => {
  for (const family of [4, 6]) {
    const rules = describe(everything).rules.filter(rule => rule.family === family)
    t.equal(new Set(rules.map(({ id }) => id)).size, rules.length)
    t.ok(rules.every(({ reason }) => reason.length > 10))
  }
})

await t.test('only the first packet of a connection is ever redirected, dropped or rejected', async t => {
  const syn = '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN'
  const listener = `${syn} -m socket --nowildcard`
  for (const [seesListeners, matches] of [
    [true, [listener, syn, listener, syn, syn]],
    [false, [syn, syn, syn, syn]],
  ] as const) {
    const { rules } = describe(everything, seesListeners)
    const deciding = rules.filter(({ target }) => /REDIRECT|DROP|REJECT/.test(target))
    t.strictSame(
      deciding.map(({ match }) => match),
      [...matches, ...matches],
    )
  }
})

await t.test('without zones in connection tracking the raw table is not touched', async t => {
  const rawOf = (hasZones: boolean) =>
    describeRules(everything, { seesListeners: true, hasZones })
      .rules.filter(({ table }) => table === 'raw')
      .map(({ id }) => id)
  const both = ['jump/raw/CULVERT_OUTPUT', 'return/zone']
  t.strictSame(rawOf(true), [...both, ...both])
  t.strictSame(rawOf(false), [])
})

await t.test('what nobody listens for is refused, by the lock of a strict pod too', async t => {
  const ends = (seesListeners: boolean) =>
    describe(everything, seesListeners)
      .rules.filter(({ family, id }) => family === 4 && id.includes('refused/'))
      .map(({ table, target }) => [table, target])
  t.strictSame(ends(true), [
    ['nat', '-j ACCEPT'],
    ['filter', '-j REJECT --reject-with tcp-reset'],
  ])
  t.strictSame(ends(false), [])
})

await t.test('where a packet passes without the agent, a counter says how often', async t => {
  const passing = describe(everything).rules.filter(
    ({ table, chain, target }) => table === 'nat' && chain.startsWith('CULVERT_') && target === '-j RETURN',
  )
  t.strictSame(
    passing.filter(({ counter }) => counter === undefined).map(({ id }) => id),
    ['pass/loopback/inbound', 'pass/loopback/inbound'],
    'loopback is counted once, where it leaves',
  )
})

await t.test('the capture comes last in its chain, so that everything that passes has passed', async t => {
  const { rules } = describe(everything, false)
  for (const [chain, id] of [
    ['CULVERT_PREROUTING', 'captured/inbound'],
    ['CULVERT_OUTPUT', 'captured/outbound'],
  ] as const) {
    const ids = rules.filter(rule => rule.table === 'nat' && rule.family === 4 && rule.chain === chain)
    t.equal(ids.at(-1)!.id, id)
  }
})

await t.test('without strict or require the filter table is not ours', async t => {
  const ruleSet = describe(enrolment())
  t.notOk(ruleSet.rules.some(({ table }) => table === 'filter'))
  t.strictSame(ruleSet.policies, [])
})

await t.test('strict locks what comes, require what leaves', async t => {
  const chains = (more: Partial<Enrolment>) => describe(enrolment(more)).policies.map(({ chain }) => chain)
  t.strictSame(chains({ strictInbound: true }), ['INPUT', 'INPUT'])
  t.strictSame(chains({ requireOutbound: true }), ['OUTPUT', 'OUTPUT'])
})

await t.test('exclusions are sorted, each once, and of their own family', async t => {
  const { rules } = describe(
    enrolment({
      excludeInboundPorts: [443, 80, 443],
      excludeOutboundCidrs: ['fd00::/8', '10.1.2.3/16', '10.1.0.0/16', '0.0.0.0/0'],
    }),
  )
  const ids = (family: number) =>
    rules
      .filter((rule: Rule) => rule.family === family && rule.id.startsWith('excluded-'))
      .map(({ id }) => id)
  t.strictSame(ids(4), [
    'excluded-port/inbound/80',
    'excluded-port/inbound/443',
    'excluded-cidr/outbound/0.0.0.0/0',
    'excluded-cidr/outbound/10.1.0.0/16',
  ])
  t.strictSame(ids(6), [
    'excluded-port/inbound/80',
    'excluded-port/inbound/443',
    'excluded-cidr/outbound/fd00::/8',
  ])
})

await t.test('more exclusions than a pod may have are refused', async t => {
  const excludeOutboundPorts = Array.from({ length: MAX_EXCLUSIONS + 1 }, (_, at) => at + 1)
  t.throws(() => describe(enrolment({ excludeOutboundPorts })), {
    code: 'INPUT',
    message: `${MAX_EXCLUSIONS + 1} excluded outbound ports, more than ${MAX_EXCLUSIONS}`,
  })
})

await t.test('all chains that rules are in are among ours or built in', async t => {
  for (const { table, chain, place } of describe(everything).rules)
    t.ok(
      place === undefined ? CHAINS[table].includes(chain) : ['PREROUTING', 'INPUT', 'OUTPUT'].includes(chain),
    )
})
