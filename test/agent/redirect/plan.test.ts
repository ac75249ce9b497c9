import t from 'tap'
import { NOT_ENROLLED } from '../../../lib/enrolment.ts'
import { renderTable, tableDrift } from '../../../agent/redirect/plan.ts'
import { TABLES, type RuleSet } from '../../../agent/redirect/rule.ts'
import { describeRules } from '../../../agent/redirect/rules.ts'
import { parseSaved, type SavedTable } from '../../../agent/redirect/saved.ts'

const permissive = describeRules(
  { ...NOT_ENROLLED, excludeOutboundPorts: [5432] },
  { seesListeners: true, hasZones: true },
)
const strict = describeRules(
  { ...NOT_ENROLLED, strictInbound: true },
  { seesListeners: true, hasZones: true },
)
const nothing: RuleSet = { rules: [], policies: [] }

/** The table that a restore of `text` into a fresh one makes, in the words of iptables-save. */
function restored(text: string): SavedTable {
  const builtin = /\*filter/.test(text) ? ['INPUT', 'OUTPUT'] : ['PREROUTING', 'OUTPUT']
  const policy = (chain: string) => (text.includes(`-P ${chain} DROP`) ? 'DROP' : 'ACCEPT')
  const lines = text
    .replaceAll(/^-I (\S+) 1 /gm, '-A $1 ')
    .split('\n')
    .filter(line => !/^-[PDFX] /.test(line))
  // Jumps that are inserted at the top come after those that were appended: put them in front.
  lines.splice(1, 0, ...builtin.map(chain => `:${chain} ${policy(chain)} [0:0]`))
  const first = lines.filter(line => /^-A (PREROUTING|INPUT|OUTPUT) .*jump/.test(line) && !/_END"/.test(line))
  const rest = lines.filter(line => !first.includes(line) && line !== 'COMMIT')
  const rules = rest.findIndex(line => /-A /.test(line))
  rest.splice(rules < 0 ? rest.length : rules, 0, ...first)
  return [...parseSaved(rest.join('\n')).values()][0]!
}

await t.test('what was programmed is not drift, and needs nothing more', async t => {
  for (const ruleSet of [permissive, strict])
    for (const family of [4, 6] as const)
      for (const table of TABLES) {
        const text = renderTable(ruleSet, family, table)
        if (text === '') continue
        t.strictSame(tableDrift(ruleSet, family, table, restored(text)), [])
        t.equal(renderTable(ruleSet, family, table, restored(text)), '')
      }
})

await t.test('a rule that is gone, one that is foreign and one that moved are told apart', async t => {
  const text = renderTable(permissive, 4, 'nat')
  const drift = (change: (text: string) => string) => tableDrift(permissive, 4, 'nat', restored(change(text)))
  t.strictSame(
    drift(text => text.replace(/^.*"culvert:udp\/outbound".*\n/m, '')),
    ['IPv4 nat: rule udp/outbound is missing from CULVERT_OUTPUT'],
  )
  t.strictSame(
    drift(text => text.replace('COMMIT', '-A CULVERT_OUTPUT -j ACCEPT\nCOMMIT')),
    ['IPv4 nat: CULVERT_OUTPUT has a rule that is not ours: -j ACCEPT'],
  )
  t.strictSame(
    drift(text => text.replace(/^(.*udp-dns\/outbound.*\n)(.*udp\/outbound.*\n)/m, '$2$1')),
    ['IPv4 nat: rules of CULVERT_OUTPUT are out of order or doubled'],
  )
  t.strictSame(
    drift(text => text.replaceAll(/^\[0:0\] -A CULVERT_OUTPUT.*\n/gm, '')),
    ['IPv4 nat: chain CULVERT_OUTPUT is empty'],
  )
})

await t.test('counts are carried over when a table has to be written again', async t => {
  const saved = restored(
    renderTable(permissive, 4, 'nat').replace(/^\[0:0\](.*"culvert:loopback")/m, '[7:420]$1'),
  )
  saved.get('OUTPUT')!.rules.length = 0
  const text = renderTable(permissive, 4, 'nat', saved)
  t.match(text, /^\[7:420\] -A CULVERT_OUTPUT -o lo .*"culvert:loopback"/m)
})

await t.test('strict closes the policy and opens the end of the chain for what got through', async t => {
  const text = renderTable(strict, 4, 'filter')
  t.match(text, /^-P INPUT DROP$/m)
  t.match(text, /-A CULVERT_INPUT_END .*-j ACCEPT$/m)
  t.notMatch(text, /OUTPUT/)
})

await t.test("a pod's own firewall keeps its policy, and its end stays closed", async t => {
  const own = parseSaved(
    '*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n',
  )
  const text = renderTable(strict, 4, 'filter', own.get('filter'))
  t.match(text, /-j CULVERT_INPUT$/m)
  t.notMatch(text, /_END|-P /)
})

await t.test('a chain that was ours and was flushed is ours again', async t => {
  const flushed = parseSaved('*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n')
  t.match(renderTable(strict, 4, 'filter', flushed.get('filter')), /-A INPUT .*-j CULVERT_INPUT_END$/m)
})

await t.test('taking everything away restores the policy and leaves no chain', async t => {
  const text = renderTable(nothing, 4, 'filter', restored(renderTable(strict, 4, 'filter')))
  t.match(text, /^-P INPUT ACCEPT$/m)
  for (const chain of ['CULVERT_INPUT', 'CULVERT_INPUT_END']) t.match(text, new RegExp(`^-X ${chain}$`, 'm'))
  t.equal(
    renderTable(nothing, 4, 'filter', parseSaved('*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n').get('filter')),
    '',
  )
})
