/**
 * Compares a table as it is with what it should be, and writes the change between the two. Both come from the
 * same view of "what should be", so that what was just programmed never counts as drift.
 */
import {
  CHAINS,
  COMMENT_PREFIX,
  type Family,
  type Policy,
  type Rule,
  type RuleSet,
  type Table,
} from './rule.ts'
import { canonicalSpec, type SavedChain, type SavedRule, type SavedTable } from './saved.ts'

const BUILTIN: Readonly<Record<Table, readonly string[]>> = {
  raw: ['OUTPUT'],
  mangle: ['PREROUTING', 'OUTPUT'],
  nat: ['PREROUTING', 'OUTPUT'],
  filter: ['INPUT', 'OUTPUT'],
}

/** A pod may put any number of rules into our chains; a few say enough. */
const MAX_FOREIGN_NAMED = 5

const EMPTY: SavedTable = new Map()

/** What differs in this table, one sentence each, `IPv4 nat: …`; nothing when it is as it should be. */
export function tableDrift(
  ruleSet: RuleSet,
  family: Family,
  table: Table,
  saved: SavedTable = EMPTY,
): string[] {
  const wanted = wantedIn(ruleSet, family, table, saved)
  const found: string[] = []
  for (const chain of CHAINS[table]) found.push(...chainDrift(chain, wanted.ours(chain), saved.get(chain)))
  for (const chain of BUILTIN[table]) found.push(...placeDrift(chain, wanted.ours(chain), saved.get(chain)))
  for (const [chain, policy] of wanted.policies)
    if (saved.get(chain)?.policy !== policy) found.push(`policy of ${chain} is not ${policy}`)
  return found.map(sentence => `IPv${family} ${table}: ${sentence}`)
}

/**
 * The lines for iptables-restore that make this table what it should be, `*table` to `COMMIT`; one transaction.
 * What stays keeps the counts it has. Empty when nothing differs.
 */
export function renderTable(
  ruleSet: RuleSet,
  family: Family,
  table: Table,
  saved: SavedTable = EMPTY,
): string {
  if (tableDrift(ruleSet, family, table, saved).length === 0) return ''
  const wanted = wantedIn(ruleSet, family, table, saved)
  const chains = CHAINS[table].filter(chain => wanted.ours(chain).length > 0)
  const unwanted = CHAINS[table].filter(chain => !chains.includes(chain) && saved.has(chain))
  const lines = [`*${table}`, ...chains.map(chain => `:${chain} - [0:0]`)]
  for (const chain of BUILTIN[table])
    for (const rule of saved.get(chain)?.rules ?? []) if (isOurs(rule)) lines.push(`-D ${chain} ${rule.spec}`)
  for (const chain of chains) {
    const counts = new Map(saved.get(chain)?.rules.map(rule => [rule.id, rule]))
    for (const rule of wanted.ours(chain)) {
      const { packets = 0n, bytes = 0n } = counts.get(rule.id) ?? {}
      lines.push(`[${packets}:${bytes}] -A ${chain} ${ruleSpec(rule)}`)
    }
  }
  for (const chain of BUILTIN[table])
    for (const rule of wanted.ours(chain))
      lines.push(rule.place === 'last' ? `-A ${chain} ${ruleSpec(rule)}` : `-I ${chain} 1 ${ruleSpec(rule)}`)
  for (const [chain, policy] of wanted.policies)
    if (saved.get(chain)?.policy !== policy) lines.push(`-P ${chain} ${policy}`)
  for (const chain of unwanted) lines.push(`-F ${chain}`, `-X ${chain}`)
  return [...lines, 'COMMIT', ''].join('\n')
}

/** A rule's words, comment included, as they follow `-A CHAIN`. */
export function ruleSpec(rule: Rule): string {
  return `${rule.match} -m comment --comment "${COMMENT_PREFIX}${rule.id}" ${rule.target}`.trim()
}

interface Wanted {
  /** The rules of ours that belong into a chain, in order. */
  ours(chain: string): readonly Rule[]
  /** Policies that must hold; others are not ours to judge. */
  readonly policies: ReadonlyMap<string, string>
}

function wantedIn(ruleSet: RuleSet, family: Family, table: Table, saved: SavedTable): Wanted {
  const policies = new Map<string, string>()
  const without = new Set<string>()
  if (table === 'filter') {
    for (const policy of ruleSet.policies.filter(policy => policy.family === family)) {
      if (mayClose(policy, saved)) policies.set(policy.chain, 'DROP')
      else without.add(policy.end)
    }
    for (const chain of ['INPUT', 'OUTPUT'])
      if (!policies.has(chain) && saved.has(`CULVERT_${chain}_END`)) policies.set(chain, 'ACCEPT')
  }
  const rules = ruleSet.rules.filter(
    rule =>
      rule.family === family &&
      rule.table === table &&
      !without.has(rule.chain) &&
      !without.has(rule.target.slice('-j '.length)),
  )
  const byChain = Map.groupBy(rules, rule => rule.chain)
  return { ours: chain => byChain.get(chain) ?? [], policies }
}

/**
 * Reports whether the policy is ours to set. A pod may have a firewall of its own whose policy is DROP: it
 * closes the chain already, and an accepting rule of ours at its end would open it. A closed chain without any
 * rule of the pod's is one of ours that was flushed.
 */
function mayClose(policy: Policy, saved: SavedTable): boolean {
  const chain = saved.get(policy.chain)
  return (
    chain === undefined || chain.policy === 'ACCEPT' || saved.has(policy.end) || chain.rules.every(isOurs)
  )
}

function isOurs(rule: SavedRule): boolean {
  return rule.id !== undefined
}

function chainDrift(chain: string, wanted: readonly Rule[], saved: SavedChain | undefined): string[] {
  if (wanted.length === 0) return saved === undefined ? [] : [`chain ${chain} should not be there`]
  if (saved === undefined) return [`chain ${chain} is missing`]
  if (saved.rules.length === 0) return [`chain ${chain} is empty`]
  const want = wanted.map(rule => canonicalSpec(ruleSpec(rule)))
  const have = saved.rules.map(rule => rule.canonical)
  const missing = wanted
    .filter((_, at) => !have.includes(want[at]!))
    .map(rule => `rule ${rule.id} is missing from ${chain}`)
  const foreign = saved.rules
    .filter(rule => !want.includes(rule.canonical))
    .slice(0, MAX_FOREIGN_NAMED)
    .map(rule => `${chain} has a rule that is not ours: ${rule.spec}`)
  if (missing.length + foreign.length > 0) return [...missing, ...foreign]
  const isSame = want.length === have.length && want.every((spec, at) => spec === have[at])
  return isSame ? [] : [`rules of ${chain} are out of order or doubled`]
}

/** Built-in chains are shared: ours must be at their place there, and once. */
function placeDrift(chain: string, wanted: readonly Rule[], saved: SavedChain | undefined): string[] {
  const rules = saved?.rules ?? []
  const found: string[] = []
  for (const rule of wanted) {
    const canonical = canonicalSpec(ruleSpec(rule))
    if (!rules.some(other => other.canonical === canonical))
      found.push(`rule ${rule.id} is missing from ${chain}`)
    else if (rules.at(rule.place === 'last' ? -1 : 0)!.canonical !== canonical)
      found.push(`rule ${rule.id} is not the ${rule.place} of ${chain}`)
  }
  const ours = rules.filter(isOurs).length
  if (found.length === 0 && ours > wanted.length)
    found.push(`${chain} has rules of ours that should not be there`)
  return found
}
