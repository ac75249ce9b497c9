/** The rules of a pod for a person to read: each as the line it is, why it exists, and what it has counted. */
import type { Counters } from './counters.ts'
import { ruleSpec } from './plan.ts'
import { RETURN_PATH_TEXT } from './return-path.ts'
import { TABLES, type RuleSet } from './rule.ts'

/**
 * Text of many lines. IPv4 and IPv6 rules differ in addresses only, so those that are the same are shown once.
 * With `counters` each counted rule says how much it has counted, both families together.
 */
export function explainRules(ruleSet: RuleSet, counters?: Counters): string {
  const lines: string[] = []
  const shown = new Set<string>()
  for (const table of TABLES) {
    const rules = ruleSet.rules.filter(rule => rule.table === table)
    if (rules.length > 0) lines.push(`table ${table}`)
    for (const rule of rules) {
      const line = `-A ${rule.chain} ${ruleSpec(rule)}`
      if (shown.has(`${table} ${line}`)) continue
      shown.add(`${table} ${line}`)
      const isInBoth = rules.some(other => other !== rule && `-A ${other.chain} ${ruleSpec(other)}` === line)
      lines.push(`  ${isInBoth ? 'IPv4, IPv6' : `IPv${rule.family}`}  ${line}`, `      ${rule.reason}`)
      if (rule.counter !== undefined && counters !== undefined)
        lines.push(`      counted: ${counters[rule.counter] ?? 0n}`)
    }
    if (table === 'filter')
      for (const chain of new Set(ruleSet.policies.map(policy => policy.chain)))
        lines.push(`  IPv4, IPv6  -P ${chain} DROP`, `      ${ruleSet.policies[0]!.reason}`)
  }
  lines.push('policy routing')
  for (const { line, reason } of RETURN_PATH_TEXT) lines.push(`  IPv4, IPv6  ${line}`, `      ${reason}`)
  return `${lines.join('\n')}\n`
}
