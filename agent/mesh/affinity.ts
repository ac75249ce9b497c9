/**
 * Which endpoint a pod always goes to, for services with session affinity (`ClientIP`). The first choice is by rendezvous
 * hash of client and endpoint: it takes no memory, every agent that is asked anew chooses the same, and when an endpoint
 * goes only its own clients are moved. What was chosen is remembered besides, so that an endpoint that comes takes nobody
 * away from another: kube-proxy, too, stays with an endpoint as long as that is there.
 *
 * Kubernetes' timeout says after how long without a connection a client may be sent elsewhere; here it never is while
 * its endpoint is among those to choose from, which keeps every timeout.
 */
import { createHash } from 'node:crypto'
import type { Endpoint } from '../worker/messages.ts'

/** A pod that talks to more services with affinity than that is forgotten and chosen for anew. */
const MAX_REMEMBERED = 4096

export class Affinity {
  /** By pod uid: by service, the address of the endpoint. */
  readonly #chosen = new Map<string, Map<string, string>>()

  /** The endpoints in the order in which this pod is to try them. */
  inOrder(podUid: string, service: string, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    const chosen = this.#of(podUid)
    const remembered = chosen.get(service)
    // By address, so that a client of several ports of the service has them all at one endpoint.
    const scored = endpoints.map(endpoint => ({
      endpoint,
      score:
        endpoint.ip === remembered
          ? Infinity
          : score(`${podUid}\n${service}\n${endpoint.ip}`, endpoint.weight),
    }))
    const ordered = scored.sort((a, b) => b.score - a.score).map(({ endpoint }) => endpoint)
    const [first] = ordered
    if (first) chosen.set(service, first.ip)
    return ordered
  }

  forget(podUid: string): void {
    this.#chosen.delete(podUid)
  }

  #of(podUid: string): Map<string, string> {
    let chosen = this.#chosen.get(podUid)
    if (!chosen || chosen.size >= MAX_REMEMBERED) this.#chosen.set(podUid, (chosen = new Map()))
    return chosen
  }
}

/** Weighted rendezvous: the highest of all is each endpoint's as often as its weight says. */
function score(text: string, weight: number): number {
  const bits = createHash('sha256').update(text).digest().readUInt32BE()
  return weight / -Math.log((bits + 0.5) / 2 ** 32)
}
