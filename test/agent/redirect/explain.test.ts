import t from 'tap'
import { NOT_ENROLLED } from '../../../lib/enrolment.ts'
import { forgedMarks } from '../../../agent/redirect/counters.ts'
import { explainRules } from '../../../agent/redirect/explain.ts'
import { describeRules } from '../../../agent/redirect/rules.ts'

const settings = { ...NOT_ENROLLED, requireOutbound: true, excludeOutboundCidrs: ['10.0.0.0/8'] }
const ruleSet = describeRules(settings, { seesListeners: true, hasZones: true })

await t.test('each rule is shown with its reason, and those of both families once', async t => {
  const text = explainRules(ruleSet)
  for (const { reason } of ruleSet.rules) t.ok(text.includes(reason))
  t.equal(text.match(/culvert:captured\/outbound/g)!.length, 1)
  t.match(text, /IPv4, IPv6 {2}-A CULVERT_OUTPUT .*captured\/outbound/)
  t.match(text, /IPv4 {2}-A CULVERT_OUTPUT -d 10\.0\.0\.0\/8/)
  t.match(text, /-P OUTPUT DROP/)
  t.match(text, /ip rule add fwmark 0x111\/0xfff pref 32764 lookup 100/)
  t.notMatch(text, /counted:/)
})

await t.test('with counters, each counted rule says how much', async t => {
  const text = explainRules(ruleSet, { 'captured/outbound': 12n })
  t.match(text, /captured\/outbound".*\n.*\n {6}counted: 12\n/)
  t.match(text, /"culvert:loopback".*\n.*\n {6}counted: 0\n/)
})

await t.test('marks beyond what the agent opened are forged', async t => {
  t.equal(forgedMarks({ 'marked/outbound': 10n }, 7n), 3n)
  t.equal(forgedMarks({ 'marked/outbound': 7n }, 10n), 0n)
  t.equal(forgedMarks({}, 0n), 0n)
})
