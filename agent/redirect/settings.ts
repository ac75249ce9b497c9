/** What the rules of one pod depend on. */
import { Cidr } from '../../lib/address.ts'
import { CulvertError } from '../../lib/errors.ts'

/** A part of a pod's `Enrolment`, which may be given wherever this is asked for. */
export interface RedirectSettings {
  /** Plaintext from outside is refused: also by the filter table, should the capture be gone. */
  readonly strictInbound: boolean
  /** Plaintext to the outside is refused: also by the filter table, should the capture be gone. */
  readonly requireOutbound: boolean
  readonly excludeInboundPorts: readonly number[]
  readonly excludeOutboundPorts: readonly number[]
  readonly excludeOutboundCidrs: readonly string[]
}

/** Each exclusion is a rule of its own, with its own counter, so their number is bounded. */
export const MAX_EXCLUSIONS = 512

/**
 * The same settings always in the same form: lists ascending, each entry once, CIDRs as canonical text. Throws
 * `INPUT` when there are too many exclusions, `ADDRESS` for one that is not a CIDR.
 */
export function normalSettings(settings: RedirectSettings): RedirectSettings {
  const { strictInbound, requireOutbound } = settings
  const cidrs = settings.excludeOutboundCidrs.map(text => Cidr.parse(text).text)
  return {
    strictInbound,
    requireOutbound,
    excludeInboundPorts: distinct(settings.excludeInboundPorts, 'inbound ports', (a, b) => a - b),
    excludeOutboundPorts: distinct(settings.excludeOutboundPorts, 'outbound ports', (a, b) => a - b),
    excludeOutboundCidrs: distinct(cidrs, 'outbound CIDRs', (a, b) => (a < b ? -1 : 1)),
  }
}

function distinct<T>(list: readonly T[], what: string, order: (a: T, b: T) => number): T[] {
  const unique = [...new Set(list)].sort(order)
  if (unique.length <= MAX_EXCLUSIONS) return unique
  throw new CulvertError('INPUT', `${unique.length} excluded ${what}, more than ${MAX_EXCLUSIONS}`)
}
