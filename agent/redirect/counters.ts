/**
 * The names of what the rules count. In the nat table only the first packet of a connection is seen, so a
 * counter there counts connections (or UDP exchanges); the two that drop count packets. They start from zero
 * whenever the rules had to be put back: read them as one reads a counter that may reset.
 */

export type CounterName =
  /** Handed to the agent. */
  | 'captured/outbound'
  | 'captured/inbound'
  /** Came to the agent's tunnel port by itself. */
  | 'hbone/inbound'
  /** Carried the agent's mark: what the agent opened, and what pretends to be the agent's. */
  | 'marked/outbound'
  | 'loopback'
  | 'udp-dns/outbound'
  | 'udp-dns/inbound'
  | 'udp/outbound'
  | 'udp/inbound'
  /** Neither TCP nor UDP: ICMP, SCTP, … */
  | 'other/outbound'
  | 'other/inbound'
  /** First seen in the middle: open before the rules were there. */
  | 'pre-enrolment/outbound'
  | 'pre-enrolment/inbound'
  | `excluded-port/outbound/${number}`
  | `excluded-port/inbound/${number}`
  | `excluded-cidr/outbound/${string}`
  /** SYNs that came around the capture and were dropped, by the strict and the require mode. */
  | 'strict/inbound'
  | 'require/outbound'

export type Counters = Partial<Record<CounterName, bigint>>

/**
 * Connections that left under the agent's mark without being the agent's: a process in the pod with the right
 * to set marks can get around the capture, and this is where it shows. Never less than zero.
 */
export function forgedMarks(counters: Counters, openedByAgent: bigint): bigint {
  const forged = (counters['marked/outbound'] ?? 0n) - openedByAgent
  return forged > 0n ? forged : 0n
}
