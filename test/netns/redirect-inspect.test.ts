import t from 'tap'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import { applyRedirect, inspectRedirect, removeRedirect } from '../../agent/redirect/apply.ts'
import { Iptables } from '../../agent/redirect/iptables.ts'
import { renderTable, tableDrift } from '../../agent/redirect/plan.ts'
import { TABLES } from '../../agent/redirect/rule.ts'
import { describeRules } from '../../agent/redirect/rules.ts'
import { parseSaved } from '../../agent/redirect/saved.ts'
import { inPod, makePods } from '../helpers/pods.ts'

const settings = { ...NOT_ENROLLED, mesh: true, strictInbound: true }

await t.test('every way to get around the rules is seen, and put right', async t => {
  const [pod] = makePods(t, ['pod'])
  const cases: [command: string, drift: RegExp][] = [
    ['iptables -t nat -F', /^IPv4 nat: chain CULVERT_OUTPUT is empty$/],
    [
      'iptables -t nat -I OUTPUT -j ACCEPT',
      /^IPv4 nat: rule jump\/nat\/CULVERT_OUTPUT is not the first of OUTPUT$/,
    ],
    [
      'iptables -t nat -I CULVERT_OUTPUT -d 10.0.0.1 -j ACCEPT',
      /^IPv4 nat: CULVERT_OUTPUT has a rule that is not ours/,
    ],
    [
      'ip6tables -t mangle -F OUTPUT',
      /^IPv6 mangle: rule jump\/mangle\/CULVERT_OUTPUT is missing from OUTPUT$/,
    ],
    ['iptables -P INPUT ACCEPT', /^IPv4 filter: policy of INPUT is not DROP$/],
    [
      'iptables -A INPUT -p udp -j ACCEPT',
      /^IPv4 filter: rule jump\/filter\/CULVERT_INPUT_END is not the last of INPUT$/,
    ],
    ['iptables -F; iptables -X', /^IPv4 filter: chain CULVERT_INPUT is missing$/],
    ['nft flush ruleset', /^IPv6 nat: chain CULVERT_PREROUTING is missing$/],
    ['ip rule del pref 32764', /^IPv4 routing: the rule for marked answers is missing$/],
    ['ip -6 route flush table 100', /^IPv6 routing: the local route of table 100 is missing$/],
  ]
  await applyRedirect(pod!.fd, settings)
  for (const [command, expected] of cases) {
    inPod(pod!, 'sh', ['-c', command])
    const { drift } = await inspectRedirect(pod!.fd, settings)
    t.ok(
      drift.some(sentence => expected.test(sentence)),
      command,
      { drift },
    )
    await applyRedirect(pod!.fd, settings)
    t.strictSame(await inspectRedirect(pod!.fd, settings), { drift: [], bypasses: [] })
  }
})

await t.test("a pod's own rules are left where they are", async t => {
  const [pod] = makePods(t, ['pod'])
  inPod(pod!, 'iptables', ['-t', 'nat', '-A', 'OUTPUT', '-p', 'tcp', '--dport', '1', '-j', 'RETURN'])
  await applyRedirect(pod!.fd, settings)
  await removeRedirect(pod!.fd)
  t.equal(
    inPod(pod!, 'iptables', ['-t', 'nat', '-S', 'OUTPUT']),
    '-P OUTPUT ACCEPT\n-A OUTPUT -p tcp -m tcp --dport 1 -j RETURN\n',
  )
})

await t.test('packets that are taken out of connection tracking are a bypass that is named', async t => {
  const [pod] = makePods(t, ['pod'])
  await applyRedirect(pod!.fd, settings)
  inPod(pod!, 'iptables', ['-t', 'raw', '-A', 'OUTPUT', '-p', 'tcp', '-j', 'CT', '--notrack'])
  const { drift, bypasses } = await inspectRedirect(pod!.fd, settings)
  t.strictSame(drift, [])
  t.match(bypasses, [/^IPv4 raw: OUTPUT takes packets out of connection tracking/])
})

await t.test('the legacy backend is programmed with the same text', async t => {
  const [pod] = makePods(t, ['pod'])
  const iptables = await Iptables.detect(pod!.fd, [['legacy', '-legacy']])
  t.match(iptables, { variant: 'legacy', seesListeners: true, hasZones: true })
  const ruleSet = describeRules(
    { ...settings, requireOutbound: true, excludeOutboundCidrs: ['10.0.0.0/8'] },
    iptables,
  )
  for (const family of [4, 6] as const) {
    const read = async () => parseSaved(await iptables.save(pod!.fd, family))
    const drift = async (rules = ruleSet) => {
      const saved = await read()
      return TABLES.flatMap(table => tableDrift(rules, family, table, saved.get(table)))
    }
    const program = async (rules = ruleSet) => {
      const saved = await read()
      await iptables.restore(
        pod!.fd,
        family,
        TABLES.map(table => renderTable(rules, family, table, saved.get(table))).join(''),
      )
    }
    await program()
    t.strictSame(await drift(), [])
    inPod(pod!, family === 4 ? 'iptables-legacy' : 'ip6tables-legacy', ['-F'])
    t.not((await drift()).length, 0)
    await program()
    t.strictSame(await drift(), [])
    const nothing = { rules: [], policies: [] }
    await program(nothing)
    t.strictSame(await drift(nothing), [])
  }
})

await t.test('without any iptables the error names what to install', async t => {
  const [pod] = makePods(t, ['pod'])
  await t.rejects(Iptables.detect(pod!.fd, [['nft', '-none-of-this-name']]), {
    code: 'TOOL',
    message: 'no usable iptables: iptables-none-of-this-name-restore is not installed',
    hint: /install the package iptables/,
  })
})
