/**
 * What the annotation `culvert.dev/status` says of a pod: what was observed, and since when, in one line for people
 * and for the other replicas: `<state>[: <detail>] (since <RFC 3339, UTC, whole seconds>)`. A pod that is not in the
 * mesh has none.
 */
import { printable } from './printable.ts'

export const POD_STATES = ['enrolled', 'pending', 'drifted'] as const
export type PodStatusState = (typeof POD_STATES)[number]

export interface PodStatus {
  readonly state: PodStatusState
  /** Why pending, what drifted; may be empty. */
  readonly detail: string
  /** Unix milliseconds, a whole second. */
  readonly sinceMs: number
}

const LONGEST_DETAIL = 200
const FORMAT = /^(enrolled|pending|drifted)(?:: (.+))? \(since (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\)$/u
/** Longer ones are not ours. */
const LONGEST = 1000

/** The annotation's text. `sinceMs` is cut to the second, the detail to one short line. */
export function formatPodStatus({ state, detail, sinceMs }: PodStatus): string {
  const short = statusDetail(detail)
  return `${state}${short === '' ? '' : `: ${short}`} (since ${new Date(sinceMs).toISOString().slice(0, 19)}Z)`
}

/** What the annotation keeps of a detail. */
export function statusDetail(detail: string): string {
  return printable(detail.trim(), LONGEST_DETAIL)
}

/** What a text says; undefined when it is not in the format, whoever wrote it. */
export function parsePodStatus(text: string | undefined): PodStatus | undefined {
  if (text === undefined || text.length > LONGEST) return undefined
  const [, state, detail = '', since = ''] = FORMAT.exec(text) ?? []
  const sinceMs = Date.parse(since)
  if (state === undefined || Number.isNaN(sinceMs)) return undefined
  return { state: state as PodStatusState, detail, sinceMs }
}
