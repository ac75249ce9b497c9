/**
 * What a check has found: of a node (by the program that runs there), of the cluster, of an installation. Ids are words
 * for scripts and stay what they are; texts are for people.
 */
import { CulvertError } from './errors.ts'

export const FINDING_STATES = ['ok', 'warn', 'fail'] as const
export type FindingState = (typeof FINDING_STATES)[number]

export interface Finding {
  readonly id: string
  readonly state: FindingState
  /** What was found, as one sentence without its period. */
  readonly text: string
  /** What to do about it. */
  readonly hint?: string
}

/** What the program on a node says. */
export interface NodeReport {
  readonly node: string
  readonly findings: readonly Finding[]
}

const LONGEST_TEXT = 2000
const MOST_FINDINGS = 200

/** Reads what a node's program has printed. Throws `INPUT` when it is something else. */
export function parseNodeReport(text: string): NodeReport {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw new CulvertError('INPUT', 'not a report: not JSON', { cause })
  }
  const { node, findings } = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as Record<
    string,
    unknown
  >
  if (typeof node !== 'string' || !Array.isArray(findings) || findings.length > MOST_FINDINGS)
    throw new CulvertError('INPUT', 'not a report: node and findings are missing')
  return { node, findings: findings.map(readFinding) }
}

function readFinding(value: unknown): Finding {
  const { id, state, text, hint } = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >
  const isText = (part: unknown): part is string => typeof part === 'string' && part.length <= LONGEST_TEXT
  const known = FINDING_STATES.find(word => word === state)
  if (!isText(id) || known === undefined || !isText(text) || (hint !== undefined && !isText(hint)))
    throw new CulvertError('INPUT', 'not a report: a finding is malformed')
  return { id, state: known, text, ...(hint !== undefined && { hint }) }
}
