/** Ports, marks and table numbers: the field's own, so that NetworkPolicies and tools keep meaning the same thing. */

export const PORT = {
  /** Captured outbound TCP, in the pod's namespace. */
  outbound: 15001,
  /** Captured inbound plaintext, in the pod's namespace. */
  inbound: 15006,
  /** HBONE, in the pod's namespace. */
  hbone: 15008,
  /** Admin, in the agent's own namespace, loopback only. */
  admin: 15000,
  /** Prometheus, in the agent's own namespace. */
  metrics: 15020,
  /** Readiness, in the agent's own namespace. */
  ready: 15021,
} as const

/** Ports of the agent inside a pod: nobody may ask to be forwarded there. */
export const AGENT_PORTS: ReadonlySet<number> = new Set([PORT.outbound, PORT.inbound, PORT.hbone])

/** On every socket the agent opens, so that its own traffic is not captured again. */
export const MARK = 0x539
/** On the conntrack entry of a connection that the agent made from the client's own address. */
export const RETURN_MARK = 0x111
export const MARK_MASK = 0xfff
/** Connection tracking knows the agent's own connections to the application in a zone of this number. */
export const OWN_ZONE = 0x539
/** Policy routing that brings replies to such connections back to the agent. */
export const RETURN_TABLE = 100
export const RETURN_RULE_PREFERENCE = 32764
