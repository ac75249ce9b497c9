/**
 * Which agent of a node is believed. While two overlap it is the one that started last, and a drained predecessor's
 * late word is not; when the newest has been silent for long, clocks may have gone back and any word counts again.
 */

/** One start of a node's agent. */
export interface AgentStart {
  readonly node: string
  readonly instance: string
  readonly startedAtMs: number
}

/** Agents report in full every minute. */
const SPEAKS_WITHIN_MS = 90_000
/** After so much silence the newest one is gone. */
const SILENCE_MS = 180_000

export class NodeAgents {
  readonly #newest = new Map<string, AgentStart & { readonly heardMs: number }>()

  /** An agent that was heard of before this server's start. */
  remember(agent: AgentStart, nowMs: number): void {
    const { node, instance, startedAtMs } = agent
    const newest = this.#newest.get(node)
    if (!newest || newest.startedAtMs < startedAtMs)
      this.#newest.set(node, { node, instance, startedAtMs, heardMs: nowMs })
  }

  /** Reports whether what this agent says counts, and remembers when it spoke. */
  believe({ node, instance, startedAtMs }: AgentStart, nowMs: number): boolean {
    const newest = this.#newest.get(node)
    const isLate =
      newest !== undefined &&
      instance !== newest.instance &&
      startedAtMs < newest.startedAtMs &&
      nowMs - newest.heardMs < SILENCE_MS
    if (isLate) return false
    this.#newest.set(node, { node, instance, startedAtMs, heardMs: nowMs })
    return true
  }

  /** Reports whether the node's agent speaks to this server, and not to another one. */
  isSpeaking(node: string, nowMs: number): boolean {
    const newest = this.#newest.get(node)
    return newest !== undefined && nowMs - newest.heardMs < SPEAKS_WITHIN_MS
  }
}
