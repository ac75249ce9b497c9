/**
 * Reads what iptables-save prints: the tables as they are. The text is the kernel's and the tool's, but the
 * rules in it may be anybody's, so a line that is not understood is somebody else's rule and nothing more.
 */
import { COMMENT_PREFIX } from './rule.ts'

export interface SavedRule {
  /** The words after `-A CHAIN`, as printed. */
  readonly spec: string
  /** The same in one order and one spelling, to compare with another. */
  readonly canonical: string
  /** The id in our comment; undefined for somebody else's rule. */
  readonly id: string | undefined
  /** Zero when saved without counters. */
  readonly packets: bigint
  readonly bytes: bigint
}

export interface SavedChain {
  /** `-` for a chain that is not built in. */
  readonly policy: string
  readonly rules: SavedRule[]
}

export type SavedTable = Map<string, SavedChain>
export type SavedTables = Map<string, SavedTable>

/** Parses the output of `iptables-save` with or without `-c`. */
export function parseSaved(text: string): SavedTables {
  const tables: SavedTables = new Map()
  let table: SavedTable | undefined
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      table = new Map()
      tables.set(line.slice(1).trim(), table)
    } else if (line.startsWith(':')) {
      const [chain, policy] = line.slice(1).split(' ')
      if (chain && policy) table?.set(chain, { policy, rules: [] })
    } else {
      const match = /^(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)$/.exec(line)
      if (!match) continue
      const spec = match[4]!
      table?.get(match[3]!)?.rules.push({
        spec,
        canonical: canonicalSpec(spec),
        id: idOf(spec),
        packets: BigInt(match[1] ?? 0),
        bytes: BigInt(match[2] ?? 0),
      })
    }
  }
  return tables
}

/**
 * A rule's words in one order: tools and versions differ in the order of matches, in quoting and in whether
 * they name a module. Two rules with the same canonical text match and do the same.
 */
export function canonicalSpec(spec: string): string {
  const options: string[] = []
  let isNegated = false
  for (const word of words(spec)) {
    if (word === '!') isNegated = true
    else if (word.startsWith('-') && word !== '-') {
      const name = word === '--syn' ? '--tcp-flags FIN,SYN,RST,ACK SYN' : word
      options.push(isNegated ? `! ${name}` : name)
      isNegated = false
    } else if (options.length > 0) options[options.length - 1] += ` ${word}`
  }
  return options
    .filter(option => !option.startsWith('-m '))
    .sort()
    .join(' ')
}

function idOf(spec: string): string | undefined {
  const list = words(spec)
  const comment = list[list.indexOf('--comment') + 1]
  return list.includes('--comment') && comment?.startsWith(COMMENT_PREFIX)
    ? comment.slice(COMMENT_PREFIX.length)
    : undefined
}

function words(spec: string): string[] {
  return [...spec.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    match => match[1]?.replaceAll(/\\(.)/g, '$1') ?? match[2]!,
  )
}
