/**
 * The one vocabulary of what became of a flow. A connection ends in exactly one of these words, the same in
 * the access log, the metric label and every report.
 */

export const CARRIED = ['mtls'] as const

/** Passed on in the clear, and allowed to. */
export const PLAINTEXT = [
  'peer-not-enrolled',
  'peer-unknown',
  'peer-external',
  'peer-host-network',
  'excluded-port',
  'excluded-cidr',
  'kubelet-probe',
] as const

/** Never came to the agent; counted by a rule of its own in the pod's namespace. */
export const UNCAPTURED = ['loopback', 'udp-dns', 'udp', 'pre-enrolment', 'forged-mark', 'drift'] as const

export const REFUSED = ['strict', 'policy', 'identity', 'tls', 'unreachable', 'no-endpoint'] as const

export type CarriedReason = (typeof CARRIED)[number]
export type PlaintextReason = (typeof PLAINTEXT)[number]
export type UncapturedReason = (typeof UNCAPTURED)[number]
export type RefusedReason = (typeof REFUSED)[number]
export type Reason = CarriedReason | PlaintextReason | UncapturedReason | RefusedReason

export const REASONS: readonly Reason[] = [...CARRIED, ...PLAINTEXT, ...UNCAPTURED, ...REFUSED]
