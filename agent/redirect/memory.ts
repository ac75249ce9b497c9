/**
 * What has been found out about states of packet rules, by their fingerprint. Pods with the same settings get the same
 * rules, so what was worked out for one of them, by programs, holds for all: from which state which lines lead to the
 * rules that are wanted, and which state is as it should be. Bounded, as a pod may bring about any number of states.
 */
import type { Family } from './rule.ts'

/** Lines for iptables-restore; empty where nothing is to be done. */
export type Changes = ReadonlyMap<Family, string>

const MAX_CHANGES = 64
const MAX_TEXT = 256 * 1024
const MAX_CLEAN = 1024

export class Memory {
  readonly #changes = new Map<string, Changes>()
  readonly #clean = new Set<string>()

  /** What leads from a state to what is wanted, if that was worked out before. `wanted` names what: the same text, the same wish. */
  changes(fingerprint: string, wanted: string): Changes | undefined {
    return this.#changes.get(`${fingerprint} ${wanted}`)
  }

  /** Changes that take counts of the pod's rules along are the pod's own, and are not kept. */
  keepChanges(fingerprint: string, wanted: string, changes: Changes): void {
    const texts = [...changes.values()]
    if (texts.some(text => text.length > MAX_TEXT || /^\[(?!0:0\])/m.test(text))) return
    keep(this.#changes, MAX_CHANGES)
    this.#changes.set(`${fingerprint} ${wanted}`, changes)
  }

  /** Reports whether a state was found to be all that is wanted, with nothing that gets around it. */
  isClean(fingerprint: string, wanted: string): boolean {
    return this.#clean.has(`${fingerprint} ${wanted}`)
  }

  keepClean(fingerprint: string, wanted: string): void {
    keep(this.#clean, MAX_CLEAN)
    this.#clean.add(`${fingerprint} ${wanted}`)
  }
}

/** Makes room for one more: the oldest goes. */
function keep(known: Map<string, unknown> | Set<string>, most: number): void {
  if (known.size < most) return
  const [oldest] = known.keys()
  known.delete(oldest!)
}
